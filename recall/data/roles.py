"""Detect the role of each interactions column, such as time, outcome or context.

Values decide first, then the name. A boolean or a rating scale that depends neither on the user, nor on the item, nor on
the calendar, is more often an outcome of the interaction than a context that a request knows in advance. As values alone do
not prove it, such a column has the role "assumed".
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl

from recall.data.column_names import (
    AMOUNT,
    BOOLEAN_WORDS,
    COLUMN_WORDS,
    CONSEQUENCE,
    DELETED,
    EVENT,
    GRADE,
    HEADING,
    LABEL,
    NEGATIVE,
    PLACE,
    PRICE,
    RATING,
    STATE,
    TEXT,
    TRUE_MARKS,
    TRUE_WORDS,
    EventRule,
    event_rule,
    known_before,
    known_events,
    names_event,
    names_id,
    names_reaction,
    names_visit,
    outcome_word,
    words,
)
from recall.data.dependence import CHOICE, Codes, Dependence, described_side, encode_distinct
from recall.data.time_columns import TimeCandidate, first_time_column, follows_calendar, rank_time_column, rises_with_time
from recall.features.values import canonical_series, cast_all

_SCALE_TOPS = (4, 5, 6, 7, 10, 20, 100)  # of scales: stars, school marks, points; not of hours, weekdays from 0, months or days
_FEWEST_LEVELS, MOST_LEVELS = 4, 21  # of a scale


def looks_like_outcome(values: pl.Series) -> Literal["", "switch", "scale"]:
    """Return whether a column holds booleans or ratings that may be an outcome.

    Args:
        values: the column, [n].

    Returns:
        "switch" for booleans, "scale" for ratings, or "" if the name or the values speak against an outcome.
    """
    numbers = numbers_of(values)
    if known_before(values.name):
        return ""
    if numbers is None:
        texts = values.drop_nulls().unique().head(3) if values.dtype == pl.String else pl.Series(dtype=pl.String)
        return "switch" if frozenset(texts.str.strip_chars().str.to_lowercase()) in BOOLEAN_WORDS else ""
    levels = numbers.drop_nulls().unique().sort()
    if set(levels) == {0.0, 1.0}:
        return "switch"
    low, high = float(levels.min() or 0), float(levels.max() or 0)  # type: ignore[arg-type]
    if not _FEWEST_LEVELS <= len(levels) <= MOST_LEVELS or low not in (0.0, 0.5, 1.0) or high not in _SCALE_TOPS:
        return ""
    half_steps = bool((levels * 2 == (levels * 2).round()).all())
    return "scale" if half_steps and len(levels) >= 0.4 * min(high, 20) else ""


# Thresholds. Chosen, not tuned.
_MAX_EVENTS = {True: 30, False: 12}  # most different texts of an event column, with a name of events and without
_MAX_GRADE = 100  # of marks at school or in percent
_NUMBERED_EVENTS = 8  # most different numbers of an event column
_LETTER_CODE = r"^\pL{1,2}$"  # for the kind of a row
_MAX_STATES = 4  # texts of a state up to which it is not a part of a country
_MIN_VISITS = 20  # different values above which those that each belong to one user are visits
_MIN_MULTIPLES = 0.9  # share of the rows that are multiples of the smallest number of their item
_MIN_OF_ONE_USER = 0.95  # share of the values of a visit column that belong to one user


@dataclass(frozen=True, slots=True)
class Role:
    """Detected role of a column.

    Attributes:
        kind: the role. "item" and "user" describe the item or user, "visit" is the id of a basket or session,
            "consequence" depends on the outcome (such as a review), "moment" is a second time, "assumed" is an outcome by its
            values only.
        reason: why the column has this role; a comment in the draft.
        time: rank of the time column; None for other columns.
        events: proposed weights of an event column; None for other columns.
        low: smallest value of a rating or an amount.
        high: largest value of a rating or an amount.
        levels: distinct values of a rating, ascending; empty for booleans.
        flag: whether the column is a boolean outcome, such as clicked.
        has_missing: whether some rows have no value.
    """

    kind: Literal[
        "split", "time", "label", "event", "rating", "amount", "consequence",
        "item", "user", "visit", "moment", "assumed", "context",
    ]  # fmt: skip
    reason: str
    time: TimeCandidate | None = None
    events: EventRule | None = None
    low: float = 0.0
    high: float = 0.0
    levels: tuple[float, ...] = ()
    flag: bool = False
    has_missing: bool = False


def detect_roles(frame: pl.DataFrame, user_id: str, item_id: str, distinct_values: Mapping[str, pl.Series]) -> dict[str, Role]:
    """Return the role of every column except the ids.

    Args:
        frame: sample of the interactions.
        user_id: column of user ids.
        item_id: column of item ids.
        distinct_values: distinct values over all rows, for columns that have few.
    """
    users, items = (encode_distinct(canonical_series(frame[name])) for name in (user_id, item_id))
    complete = np.flatnonzero((users >= 0) & (items >= 0))
    frame, users, items = frame[complete], users[complete], items[complete]
    columns = [name for name in frame.columns if name not in (user_id, item_id)]
    labels = (
        numbers_of(frame[name]) for name in columns if outcome_word(name, LABEL) and looks_like_outcome(frame[name]) == "switch"
    )
    taken = next((label > 0 for label in labels if label is not None), None)
    ranked = {
        name: rank_time_column(frame[name], numbers_of(frame[name]), users, items, taken)
        for name in columns
        if not frame[name].dtype.is_nested()
    }
    times = {name: time for name, time in ranked.items() if time is not None}
    time_column = first_time_column(frame, times) if times else None
    roles: dict[str, Role] = {}
    for name in columns:
        time = times.get(name)
        if time is not None and name == time_column:
            roles[name] = Role("time", time.reason, time=time)
        elif time is not None and time.rank[0] > 1:
            roles[name] = Role("moment", f"{time.reason}, beside {time_column}; no field reads a moment")
        else:
            roles[name] = _detect_role(frame[name], users, items, distinct_values.get(name, frame[name]))
    flags = [name for name, role in roles.items() if role.flag]
    for name in flags if len(flags) > 1 else ():
        role = _describing_role(frame[name], users, items)  # such as whether the user has subscribed
        ids = pl.DataFrame({"id": users if role.kind == "user" else items, "value": frame[name]}).drop_nulls()
        always = ids.n_unique() == ids["id"].n_unique()  # what most users of an item do follows from it nearly as well
        roles |= (
            {name: role} if role.kind in ("item", "user") and always and COLUMN_WORDS["flag_state"] & set(words(name)) else {}
        )
    has_flag = any(roles[name].flag for name in flags)
    for name, role in roles.items():
        if role.kind in ("context", "assumed") and time_column is not None and rises_with_time(frame[name], frame[time_column]):
            why = f"it rises with {time_column}, as numbers of rows and weeks do, so that a new request has another value"
            roles[name] = Role("moment", why)
        elif role.kind == "label" and (rating := _rating_of_refused(frame, name, roles, users, items)):
            roles[name] = Role("assumed", f"{role.reason}; but rows of 0 (or false) have a {rating}, too")
        elif role.kind == "context":
            assumed = _assumed_outcome(frame[name], None if time_column is None else frame[time_column], has_flag=has_flag)
            roles[name] = _detail_of_events(frame, name, roles) or assumed or _state_role(frame[name]) or role
            if (
                roles[name] is role
                and PRICE & set(words(name))
                and not known_before(name)
                and numbers_of(frame[name]) is not None
            ):
                roles[name] = Role("consequence", "by its name the price of the chosen item, which a request does not know")
    return roles


def _rating_of_refused(frame: pl.DataFrame, label: str, roles: Mapping[str, Role], users: Codes, items: Codes) -> str:
    """Return the column of ratings that users gave where a label is false, or "".

    Who rated an item took it, and further words of the name, as in `verified_purchase`, say how. Of a reaction such as
    `liked`, no is an answer nevertheless.
    """
    word = outcome_word(label, LABEL)
    says_how = known_events([word]) and not names_event(label) and not names_reaction(word)
    refused = canonical_series(frame[label]).str.to_lowercase().is_in(["0", "false"])
    for name, role in roles.items() if says_how else ():
        rating = numbers_of(frame[name]) if role.kind == "rating" and len(role.levels) <= MOST_LEVELS else None
        rated = None if rating is None else (rating.filter(refused) > 0).fill_null(value=False).mean()
        if rating is not None and rated == 1 and _describing_role(rating, users, items).kind == "context":
            return name
    return ""


def _detail_of_events(frame: pl.DataFrame, name: str, found: Mapping[str, Role]) -> Role | None:
    """Return the role of a column that follows from the event, or None.

    Either its values determine the event, such as the number of a state, or it is filled for some events only, such as the
    currency of purchases.
    """
    if frame[name].dtype.is_nested():
        return None
    for other in (column for column, role in found.items() if role.kind == "event" and column in frame.columns):
        different, events = frame[name].n_unique(), frame[other].n_unique()
        if 1 < events <= different <= 2 * events < len(frame) / 10 and frame.select(name, other).n_unique() == different:
            return Role("consequence", f"its values determine {other}")
        shares = frame.group_by(other).agg(pl.col(name).is_not_null().mean().alias("filled"))
        filled = shares.filter(pl.col("filled") > 0)
        if len(filled) < len(shares) and filled["filled"].min() == 1:
            return Role("consequence", f"values only where {other} is {' or '.join(sorted(map(str, filled[other].unique())))}")
    return None


def _state_role(values: pl.Series) -> Role | None:
    """Return the role of words for the state of a row, or None."""
    named = set(words(values.name))
    if values.dtype != pl.String or COLUMN_WORDS["personal_state"] & named:
        return None
    texts = values.drop_nulls().unique()
    if named and named <= COLUMN_WORDS["kind"] and 1 < len(texts) <= _MAX_STATES and texts.str.contains(_LETTER_CODE).all():
        return Role("consequence", f"{', '.join(texts.sort())} may say what happened, such as a sale and its return")
    if not STATE & named:
        return None
    if len(texts) > _MAX_EVENTS[True]:
        return None
    is_state = not PLACE & named or (len(texts) <= _MAX_STATES and texts.str.len_chars().min() > 3)  # type: ignore[operator]
    is_state = is_state or known_events(texts) or any(COLUMN_WORDS["progress"] & set(words(text)) for text in texts)
    return Role("consequence", "the state of the row by its name, perhaps a later one") if is_state else None


def numbers_of(values: pl.Series) -> pl.Series | None:
    """Return a column as float64 [n], or None if a value is not a plain number.

    Text with leading zeros such as 007 is not a number, although it can be parsed.
    """
    if values.dtype.is_numeric() or values.dtype == pl.Boolean:
        return values.cast(pl.Float64).fill_nan(None)
    if values.dtype != pl.String:
        return None
    parsed = cast_all(values.str.strip_chars(), pl.Float64)
    if parsed is None or values.str.contains(r"^\s*0\d").any():
        return None
    return parsed.fill_nan(None)


def _detect_role(values: pl.Series, users: Codes, items: Codes, all_values: pl.Series) -> Role:
    """Return the role of a column that is not the time.

    Args:
        values: the column, [n].
        users: integer [n] >= 0, user of each row.
        items: integer [n] >= 0, item of each row.
        all_values: the same column, or its distinct values over all rows of the table.
    """
    if values.dtype.is_nested():
        return _describing_role(values, users, items)
    distinct = all_values.drop_nulls().unique()
    if values.name == "split" and len(distinct) and set(canonical_series(distinct)) <= {"train", "valid", "test"}:
        return Role("split", "names the part of every row")
    numbers = numbers_of(values)
    outcome = _outcome_by_name(values, numbers, distinct)
    has_missing = (values if numbers is None else numbers).null_count() > 0
    outcome = _with_missing(outcome, values) if outcome is not None and has_missing else outcome
    if outcome is not None and outcome.kind not in ("amount", "consequence"):
        return outcome
    role = _describing_role(values if numbers is None else numbers, users, items)
    describes = role.kind in ("item", "user") and values.name.lower() != "weight"
    return role if outcome is None or describes else outcome


def _with_missing(role: Role, values: pl.Series) -> Role:
    """Return the role of a column in which some rows have no value."""
    rule = role.events
    if role.kind == "label":
        texts = canonical_series(values.fill_nan(None) if values.dtype.is_float() else values).drop_nulls().unique().sort()
        no = tuple(text for text in texts if text.lower() not in TRUE_MARKS)
        rule = EventRule({text: 1.0 for text in texts if text not in no}, (), no, (), "left out" if no else "not taken")
    elif rule is not None:
        rule = replace(rule, missing="left out" if role.flag and not outcome_word(values.name, NEGATIVE) else "taken")
    return replace(role, kind="event" if rule is not None else role.kind, events=rule, has_missing=True)


def _assumed_outcome(values: pl.Series, times: pl.Series | None, *, has_flag: bool) -> Role | None:
    """Return the role of a context column that may be an outcome, or None.

    Values, name and calendar can each speak against it.
    """
    numbers = numbers_of(values)
    form: str = looks_like_outcome(values)
    if not form and numbers is not None and _is_unknown_quantity(values.name, numbers):
        form = "quantity"
    if not form or (times is not None and follows_calendar(values, times)):
        return None
    has_missing = values.null_count() > 0
    if form == "switch" and not has_flag and names_event(values.name) and not names_reaction(values.name):
        texts = canonical_series(values).drop_nulls().unique().sort()
        yes = {text: 1.0 for text in texts if text.strip().lower() in TRUE_MARKS}
        rule = EventRule(yes, (), tuple(text for text in texts if text not in yes), (), "left out" if has_missing else "")
        return Role("event", "the name says what the user did", events=rule, flag=True, has_missing=has_missing)
    if form == "switch" or numbers is None:
        shown = " and ".join(sorted(map(str, canonical_series(values).drop_nulls().unique())))
        return Role("assumed", f"{shown}, which differ between the rows of a user and of an item", has_missing=has_missing)
    levels = tuple(numbers.drop_nulls().unique().sort())
    why = "as a scale has them" if form == "scale" else "and no name states that a request knows them"
    reason = f"{levels[0]:g} to {levels[-1]:g}, {len(levels):,} different, {why}"
    return Role("assumed", reason, low=levels[0], high=levels[-1], levels=levels, has_missing=has_missing)


def _is_unknown_quantity(name: str, numbers: pl.Series) -> bool:
    """Return whether a column holds amounts that may be known only afterwards.

    They are many, have fractions, or count from 0; other whole numbers may be codes.
    """
    if known_before(name) or names_id(name) or PRICE & set(words(name)):
        return False
    known, different = numbers.drop_nulls(), numbers.drop_nulls().n_unique()
    counts = different > 2 and bool((known == 0).any() or (known != known.round()).any())
    return counts or different > MOST_LEVELS


def _describing_role(values: pl.Series, users: Codes, items: Codes) -> Role:
    """Return the role item, user, visit or context by what determines the column."""
    relations = Dependence.of(users, items, values)
    side = described_side(relations)
    if side == "item" and values.dtype.is_numeric() and _are_multiples(values, items):
        levels = tuple(values.drop_nulls().cast(pl.Float64).unique().sort())
        reason = f"{levels[0]:g} to {levels[-1]:g}: multiples of the smallest number of an item, as price times quantity"
        return Role("amount", reason, low=levels[0], high=levels[-1], levels=levels)
    if side == "item":
        return Role("item", f"follows from the item in {relations.of_item.rows:,} rows that could be compared")
    if side == "user":
        return Role("user", f"follows from the user in {relations.of_user.rows:,} rows that could be compared")
    different = values.drop_nulls().n_unique()
    if _names_visits(values, users):
        return Role(
            "visit", f"{different:,} different values, each of one user: a basket, session or row, which no new request has"
        )
    if different > _MIN_VISITS and names_visit(values.name):
        return Role("visit", f"{different:,} different numbers of sessions or orders by the name, which no new request has")
    if different > _MIN_VISITS and relations.choice.exceeds(CHOICE) and not _names_query(values.name):
        return Role(
            "consequence", "its values nearly determine the item, such as the number of a copy, or a title in several forms"
        )
    return Role("context", "")


def _names_query(name: str) -> bool:
    """Return whether a column holds what users searched for, which a request has."""
    parts = words(name)
    return bool(COLUMN_WORDS["query"] & {*parts, "".join(parts)})


def _are_multiples(numbers: pl.Series, items: Codes) -> bool:
    """Return whether numbers are multiples of the smallest of their item."""
    frame = pl.DataFrame({"number": numbers, "item": items}).drop_nulls().filter(pl.col("number") > 0)
    times = frame.select(pl.col("number") / pl.col("number").min().over("item")).to_series()
    whole = ((times - times.round()).abs() < 1e-6).mean() or 0.0
    return bool(whole > _MIN_MULTIPLES and (times > 1).mean() > 1 - _MIN_MULTIPLES)  # type: ignore[operator]


def _names_visits(values: pl.Series, users: Codes) -> bool:
    """Return whether nearly every value belongs to one user, who has several values."""
    known = values.drop_nulls()
    if values.dtype != pl.String and not (values.dtype.is_numeric() and (known == known.round()).all()):
        return False
    pairs = pl.DataFrame({"value": values, "user": users}).drop_nulls().unique()
    different = pairs["value"].n_unique()
    of_one = pairs.group_by("value").len()["len"].eq(1).sum() if len(pairs) else 0
    return different > _MIN_VISITS and of_one >= _MIN_OF_ONE_USER * different and different > pairs["user"].n_unique() / 2


def _outcome_by_name(values: pl.Series, numbers: pl.Series | None, distinct: pl.Series) -> Role | None:
    """Return the role of a column that its name makes an outcome, or None."""
    name = values.name
    if values.null_count() == len(values):
        return None
    if numbers is None or values.dtype == pl.Boolean:
        return _outcome_of_words(values, distinct)
    different = numbers_of(distinct)
    levels = tuple((numbers if different is None else different).drop_nulls().unique().sort())
    if not levels:  # only NaN
        return None
    low, high = levels[0], levels[-1]
    if set(levels) <= {0.0, 1.0}:
        both = len(levels) == 2 or (high == 1 and numbers.null_count() > 0)
        shown = "0 and 1" if len(levels) == 2 else "1 or nothing"
        if both and outcome_word(name, NEGATIVE):
            left_out, not_taken = (("1",), ()) if outcome_word(name, DELETED) else ((), ("1",))
            rule = EventRule({"0": 1.0} if low == 0 else {}, left_out, not_taken, ())
            return Role("event", f"{shown}, and 1 means no by the name", events=rule, flag=True)
        if both and outcome_word(name, LABEL):
            return Role("label", f"{shown}, and the name says what the user did", flag=True)
        return Role("amount", "one value only", low=low, high=high) if outcome_word(name, LABEL) else None
    graded = outcome_word(name, GRADE) and low >= 0 and high <= _MAX_GRADE
    if outcome_word(name, RATING) or graded:
        reason = f"{low:g} to {high:g}, {len(levels)} different: how much the user liked the item"
        return Role("rating", reason, low=low, high=high, levels=levels)
    counting = AMOUNT & COLUMN_WORDS["count"] & set(words(name))
    if (event := outcome_word(name, EVENT)) and (counting or event.removesuffix("s") in EVENT - {event}):
        return Role("amount", f"{low:g} to {high:g}: how many", low=low, high=high, levels=levels)
    if outcome_word(name, EVENT) and len(levels) <= _NUMBERED_EVENTS:
        return Role("event", "few numbers, and the name says what the user did", events=event_rule(canonical_series(distinct)))
    if outcome_word(name, CONSEQUENCE):
        return Role("consequence", f"{low:g} to {high:g}: what followed, by the name")
    if outcome_word(name, AMOUNT | LABEL) and words(name)[-1] not in COLUMN_WORDS["id_suffix"]:
        return Role("amount", f"{low:g} to {high:g}: how much, or for how long", low=low, high=high, levels=levels)
    return None


def _outcome_of_words(values: pl.Series, distinct: pl.Series) -> Role | None:
    """Return the role of a column of text or booleans that is an outcome, or None."""
    name, texts = values.name, canonical_series(distinct).unique().sort()
    lower, named = {text.strip().lower() for text in texts}, set(words(name))
    if len(lower) == 1 and lower <= TRUE_MARKS and values.null_count() and outcome_word(name, LABEL):
        return Role("label", f"{texts[0]} or nothing, and the name says what the user did", flag=True)
    if lower in BOOLEAN_WORDS and outcome_word(name, NEGATIVE):
        no = tuple(text for text in texts if text.strip().lower() in TRUE_WORDS)
        yes = dict.fromkeys((text for text in texts if text not in no), 1.0)
        refused = no[0].strip().lower()
        reason = f"{refused} and {min(lower - {refused})}, and {refused} means no by the name"
        left_out, not_taken = (no, ()) if outcome_word(name, DELETED) else ((), no)
        return Role("event", reason, events=EventRule(yes, left_out, not_taken, ()), flag=True)
    if lower in BOOLEAN_WORDS and outcome_word(name, LABEL):
        yes, no = sorted(lower, key=lambda text: text not in TRUE_WORDS)
        return Role("label", f"{yes} and {no}, and the name says what the user did", flag=True)
    if lower in BOOLEAN_WORDS and not outcome_word(name, EVENT):  # a column of yes and no may answer any question
        return None
    by_name = bool(outcome_word(name, EVENT | LABEL | RATING) or named & (STATE | COLUMN_WORDS["kind"]))
    recognised = [] if COLUMN_WORDS["source"] & named else known_events(texts)
    few = 1 < len(texts) <= _MAX_EVENTS[bool(outcome_word(name, EVENT))]
    rule = event_rule(texts, state=bool(STATE & named)) if few else EventRule({}, (), (), ())
    if few and (
        len(recognised) >= max(2, len(texts) / 2) or outcome_word(name, EVENT | LABEL) or (STATE & named and rule.left_out)
    ):
        how = "few words" + (", and the name says what the user did" if by_name else f", such as {', '.join(recognised[:3])}")
        return Role("event", how, events=rule, flag=lower in BOOLEAN_WORDS)
    aspect = few and COLUMN_WORDS["aspect"] & set(words(name)[-1:])
    graded = outcome_word(name, GRADE) and texts.str.contains(r"^\d").any()  # marks beside letters; also a note or an invoice
    if (
        (outcome_word(name, TEXT | RATING | EVENT | LABEL | HEADING) or graded)
        and not aspect
        and not {"id", "uuid", "guid"} & set(words(name)[-1:])
    ):
        reason = f"{values.drop_nulls().n_unique():,} different texts about what happened, which are written only afterwards"
        return Role("consequence", reason)
    if outcome_word(name, DELETED):
        reason = "by its name it marks deleted rows, which count as others unless they are removed from the file"
        return Role("consequence", reason)
    return None
