"""Recognise names of columns, files and events, in several languages.

`words.toml` has the vocabulary.
"""

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import polars as pl


def word_set(names: str) -> frozenset[str]:
    """Split a text at blanks into a set of names, with and without accents."""
    return frozenset((*names.split(), *_without_accents(names).split()))


def _without_accents(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.replace("ß", "ss"))
    plain = "".join(one for one in decomposed if not unicodedata.combining(one)) if not text.isascii() else text
    return unicodedata.normalize("NFC", plain)


_VOCABULARY: Final = tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))
_SETS: Final = {
    section: {name: word_set(text) for name, text in _VOCABULARY[section].items()}
    for section in ("columns", "titles", "ids", "tables", "events")
}
COLUMN_WORDS: Final = _SETS["columns"]
"""Sets of words in names of columns by meaning; `words.toml` says what each means."""
RATING, LABEL, DELETED, EVENT = (COLUMN_WORDS[name] for name in ("rating", "label", "deleted", "event"))
CONSEQUENCE, GRADE, PRICE, SALES = (COLUMN_WORDS[name] for name in ("consequence", "grade", "price", "sales"))
AMOUNT: Final = COLUMN_WORDS["amount"] | SALES
TEXT, HEADING, STATE, PLACE = (COLUMN_WORDS[name] for name in ("text", "heading", "state", "place"))
NEGATIVE: Final = DELETED | COLUMN_WORDS["negative"]
"""Whether the user refused the item."""

BOOLEAN_WORDS: Final = frozenset(frozenset(pair.split()) for pair in _VOCABULARY["booleans"]["pairs"])
"""Pairs of words for true and false, in lower case."""
TRUE_WORDS: Final = frozenset(pair.split()[0] for pair in _VOCABULARY["booleans"]["pairs"])
"""Words for true."""
TRUE_MARKS: Final = TRUE_WORDS | word_set("1 x ✓ ✔")
"""Marks for true in columns that are empty where it is false."""

_KNOWN_BEFORE_WORDS: Final = COLUMN_WORDS["known_before"]
_OUTCOME_WORDS: Final = RATING | LABEL | NEGATIVE | EVENT | AMOUNT | TEXT | CONSEQUENCE


_EASTERN = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"  # scripts without spaces between words: 顧客ID
_WORD_BORDERS = rf"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[{_EASTERN}])(?=[A-Za-z])|(?<=[A-Za-z])(?=[{_EASTERN}])"


def words(name: str) -> tuple[str, ...]:
    """Split a column name into words, in lower case and without accents.

    `unixReviewTime` and `unix_review_time` have the same three.
    """
    apart = re.sub(_WORD_BORDERS, " ", _without_accents(name))
    return tuple(word.lower() for word in re.split(r"[\W_]+", apart) if word)


def outcome_word(name: str, among: frozenset[str] = _OUTCOME_WORDS) -> str:
    """Return the word of a name that denotes an outcome, if any.

    Args:
        name: name of a column.
        among: words that denote an outcome; default all.

    Returns:
        The word; empty where there is none, or another word says that the value was known before, such as "previous". A letter
        denotes something only by itself: `y` is a label, and `x&y` is not.
    """
    parts = words(name)
    before = _KNOWN_BEFORE_WORDS & set(words(name.rpartition(".")[2]))  # a nested object may be called history
    if before and not (before == {"item"} and SALES & set(parts)):  # the revenue of a row is that of its item
        return ""
    return next((word for word in (*(part for part in parts if len(part) > 1), "".join(parts)) if word in among), "")


def known_before(name: str) -> bool:
    """Return whether a name denotes something known in advance: an hour, a device."""
    return bool((_KNOWN_BEFORE_WORDS | COLUMN_WORDS["context"]) & {*words(name), "".join(words(name))})


_EVENT_WEIGHTS: Final = {"purchase": 5.0, "cart": 3.0, "like": 2.0, "view": 1.0}  # what each kind of event counts


@dataclass(frozen=True, slots=True)
class EventRule:
    """A proposal for what each event counts.

    Attributes:
        weights: weight of each counted event, by name.
        left_out: names of events that undo a previous event.
        not_taken: names of events where an item was shown and not taken.
        unknown: names among the weights that the vocabulary lacks; they count 1.
        missing: how rows without a name count; empty where there are none.
    """

    weights: dict[str, float]
    left_out: tuple[str, ...]
    not_taken: tuple[str, ...]
    unknown: tuple[str, ...]
    missing: str = ""


def known_events(names: Iterable[str]) -> list[str]:
    """Return the names that are in the vocabulary of events."""
    return [name for name in names if _event_meaning(name) is not None]


def event_rule(names: pl.Series, *, state: bool = False) -> EventRule:
    """Propose what each event of a column counts.

    Args:
        names: String [n].
        state: whether they are states of a row, so that what was rejected later had been chosen before.
    """
    meanings = {name: _event_meaning(name) for name in names.unique().sort()}
    if state and 1.0 not in meanings.values():  # of views and other events, rejections are such, too
        meanings |= {name: 1.0 for name in meanings if _SETS["events"]["rejected"] & set(words(name))}
    rule = _rule_of_meanings(meanings)
    return rule if rule.weights else EventRule(dict.fromkeys(meanings, 1.0), (), (), tuple(meanings))  # something must count


def flag_rule(names: Sequence[str]) -> EventRule:
    """Propose weights for columns of truth values, each of one event.

    A row in which all are false was shown and not taken, unless all columns are reactions to an item that was taken anyway,
    such as a like or a skip.

    Args:
        names: names of the columns.
    """
    refused = {name: "not taken" for name in names if outcome_word(name, NEGATIVE)}
    rule = _rule_of_meanings({name: _event_meaning(name) or refused.get(name) for name in names})
    reactions = len(rule.weights) < len(names) and set(rule.weights.values()) <= {_EVENT_WEIGHTS["like"]}
    return replace(rule, missing="taken" if reactions else "not taken")


def names_event(name: str) -> bool:
    """Return whether a name consists of an event alone, such as `add_to_cart`."""
    parts = [part for part in words(name) if part not in COLUMN_WORDS["count"]]
    return bool(parts) and all(part in ("to", "was", "is", "has") or isinstance(_event_meaning(part), float) for part in parts)


def names_reaction(name: str) -> bool:
    """Return whether a name is a reaction to a taken item, such as `completed`."""
    return _event_meaning(name) == _EVENT_WEIGHTS["like"]


def counts_events(name: str) -> bool:
    """Return whether a name says how often something happened, such as `views`."""
    return names_event(name) and (name.lower().endswith("s") or bool(COLUMN_WORDS["count"] & set(words(name))))


def accumulates(name: str, side: str, *, fractions: bool) -> bool:
    """Return whether a name says what interactions add up to.

    Such as `orders_count`, `avg_rating`, or `total_spent` of a user.

    Args:
        name: column of numbers of the users or the items table.
        side: user or item.
        fractions: whether the numbers have fractions, as mean ratings have.
    """
    parts = set(words(name))
    averaged = bool(parts & (RATING | GRADE)) and (fractions or bool(parts & COLUMN_WORDS["average"]))
    return (
        averaged
        or counts_events(name)
        or bool(parts & TEXT - RATING - GRADE)
        or (bool(parts & SALES) and not parts & PRICE)
        or bool(parts & COLUMN_WORDS["total" if side == "user" else "popularity"])
    )


def names_person(name: str) -> bool:
    """Return whether a column of the users table holds the names of people."""
    parts = {re.sub(r"\d$", "", word) for word in words(name)} - COLUMN_WORDS["person_part"] - {""}
    return bool(parts) and parts <= COLUMN_WORDS["person"]


def _rule_of_meanings(meanings: Mapping[str, float | str | None]) -> EventRule:
    weights = {name: meaning for name, meaning in meanings.items() if isinstance(meaning, float)}
    unknown = tuple(name for name, meaning in meanings.items() if meaning is None)
    weights |= dict.fromkeys(unknown, 1.0)
    left_out, not_taken = (
        tuple(name for name, meaning in meanings.items() if meaning == kind) for kind in ("left out", "not taken")
    )
    return EventRule(dict(sorted(weights.items(), key=lambda one: one[1])), left_out, not_taken, unknown)


def _event_meaning(name: str) -> float | str | None:
    """Return what an event counts, "left out" or "not taken"; None if it is unknown."""
    known = _SETS["events"]
    parts = {*words(name), name.strip().lower(), "".join(words(name))}
    parts |= {part.removesuffix("s") for part in parts}
    if parts & known["undo"]:
        return "left out" if not parts & known["partly"] else _EVENT_WEIGHTS["purchase"]
    if parts & known["not_taken"]:
        return "not taken"
    return next((weight for kind, weight in _EVENT_WEIGHTS.items() if parts & known[kind]), None)


# Names of id columns and of files.

_ID_ENDING = re.compile(
    r"^(n°|nº|№)|(id|nr\.?|nummer|number|no\.?|num|code|sku|asin|isbn|uuid|guid|key|番号|コード|编号|编码|번호|код|номер)$"
)

_FALLBACK_ID_WORDS: Final = {side: [word_set(text) for text in texts] for side, texts in _VOCABULARY["fallback_ids"].items()}


def fallback_id_column(columns: Iterable[str], side: str) -> str | None:
    """Return the column to use as ids if no name denotes the user or the item.

    Sessions, for instance. None where none or several fit.

    Args:
        columns: names.
        side: user or item.
    """
    found = (_only_match(columns, known) for known in _FALLBACK_ID_WORDS[side])
    return next((name for name in found if name is not None), None)


def names_id(name: str) -> bool:
    """Return whether a name ends or begins like that of an id, such as `id_product`."""
    return bool(_ID_ENDING.search(name.strip().lower()) or COLUMN_WORDS["id_prefix"] & set(words(name)[:1]))


def names_visit(name: str) -> bool:
    """Return whether a name denotes the number of a session, order or receipt."""
    return names_id(name) and any(_only_match([name], names) for names in _FALLBACK_ID_WORDS["user"][1:])


def id_column(columns: Iterable[str], side: str) -> str | None:
    """Return the column of ids by its name; None where none or several fit.

    Args:
        columns: names.
        side: user or item.
    """
    return _only_match(columns, _SETS["ids"][side])


def _only_match(columns: Iterable[str], known: frozenset[str]) -> str | None:
    """Return the only column with a known word, or the only such that ends like an id."""
    eastern = [word for word in known if re.search(f"[{_EASTERN}]", word)]  # compounds such as 顧客番号 are not apart
    fitting = [name for name in columns if known & _spellings(name) or any(one in name for one in eastern)]
    with_id = [name for name in fitting if names_id(name)]
    fitting = [name for name in fitting if name in with_id or not COLUMN_WORDS["description"] & set(words(name))]
    return next((names[0] for names in (with_id, fitting) if len(names) == 1), None)


def _spellings(name: str) -> set[str]:
    """Return the words of a name, and all of them as one.

    Compounds such as KARTENNR are there also without their word for numbers.
    """
    parts = {*words(name), "".join(words(name))}
    return parts | {re.sub("(nr|nummer|number|num|no)$", "", part) for part in parts}


def table_of_file(name: str) -> str | None:
    """Return which table a file holds by the words of its name; the last word decides.

    Args:
        name: name of the file, without its folder.
    """
    bought = {"order", "orders", "basket", "cart", "invoice", "receipt", "purchase", "transaction"} & set(words(name))
    return "interactions" if bought else next(reversed(_tables_in(name)), None)


def names_users_and_items(name: str) -> bool:
    """Return whether the name of a file denotes users and items, and no other table.

    Such a file may have the users' items, or be either table.

    Args:
        name: name of the file, without its folder.
    """
    return set(_tables_in(name)) == {"users", "items"}


def _tables_in(name: str) -> list[str]:
    """Return the tables that the words of a file name denote, in their order.

    Singulars such as `review`, and plurals, count only where no word is in the vocabulary.
    """
    parts = words(name)
    listed = [{part} for part in parts]
    similar = [{f"{part}s", part.removesuffix("s")} for part in parts if len(part) > 3]  # not "new" for "news"
    found = ([table for one in forms for table, known in _SETS["tables"].items() if known & one] for forms in (listed, similar))
    return next((tables for tables in found if tables), [])


def title_of(texts: Iterable[str]) -> str | None:
    """Return the column that holds titles, by its name, if there is one.

    Args:
        texts: names of the columns of text, without that of the ids.
    """
    names = list(texts)
    return next((name for known in (HEADING, *_SETS["titles"].values()) for name in names if known & set(words(name))), None)
