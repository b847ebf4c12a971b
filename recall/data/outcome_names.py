"""Names by which people call columns that are known only once an interaction has happened."""

import re


def named(names: str) -> frozenset[str]:
    """The names in a text with blanks between them."""
    return frozenset(names.split())


RATING = named(
    "rating ratings rate rated stars star score scores grade grades overall vote votes satisfaction "
    "sentiment preference enjoyment engagement"
)
"""How much the user liked the item."""
LABEL = named(
    "label target y clicked click clicks purchased purchase bought buy converted conversion liked like likes applied installed "
    "booked responded response feedback recommended recommend helpful added saved favorited favourited isclick "
    "downloaded opened watched ordered reordered hired accepted favorite favourite fav thumbs upvoted subscribed won"
)
"""Whether the user took it."""
NEGATIVE = named(
    "skipped skip disliked dislike hidden hide ignored rejected returned removed cancelled canceled refunded isskip"
)
"""Whether the user refused it."""
EVENT = named("event events action actions behavior behaviour interaction eventtype eventname actiontype shelf")
"""What the user did."""
AMOUNT = named(
    "qty quantity amount paid spent spend revenue plays playcount playtime listens count cnt times units duration dwell "
    "watchtime watchratio watch minutes seconds msplayed hours progress completion percent listened played total "
    "strength weight sales gmv payment tip secs viewtime"
)
"""How much of it, or for how long."""
TEXT = named("review reviews comment comments reviewtext summary feedback text")
"""What the user said of it."""

_BEFORE = named("previous prev last past history before avg average mean expected prior item mode so far since")
_OUTCOME = RATING | LABEL | NEGATIVE | EVENT | AMOUNT | TEXT


def words(name: str) -> tuple[str, ...]:
    """The words that a column's name is made of, in lower case: `unixReviewTime` and `unix_review_time` have the same three."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return tuple(word.lower() for word in re.split(r"[^A-Za-z0-9]+", apart) if word)


def outcome_word(name: str, among: frozenset[str] = _OUTCOME) -> str:
    """The word of a name that speaks of an outcome; empty where none does, or another says that it was known before."""
    parts = words(name)
    if _BEFORE & set(parts):
        return ""
    return next((word for word in (*parts, "".join(parts)) if word in among), "")
