"""Draft the lines of `[data]` about time, split and outcomes."""

from collections.abc import Iterator, Mapping

from recall.data.roles import Role
from recall.data.scaffold.fields import array, key, numbers, text

_LIKED = 0.75  # of the way up a scale of ratings: 4 of 5, 8 of 10. Chosen, not tuned.


def data_lines(found: Mapping[str, Role]) -> Iterator[str]:
    """Draft lines for the time, the split, and every outcome.

    Alternatives are written as comments.
    """
    time = time_column(found)
    if time is not None:
        yield f"time = {text(time)}  # {found[time].reason}"
    for name, role in found.items():
        if role.kind == "time" and role.time is not None and not role.time.readable:
            yield f"# {name} is not used as the time: {role.reason}"
    if any(role.kind == "split" for role in found.values()):
        yield 'split = { by = "column" }'
    elif time is not None:
        yield 'split = { by = "last", test = 1, valid = 1 }  # the last interaction of each user tests'
    else:
        yield 'split = { by = "random" }  # without a time, interactions drawn at random validate and test'
    taken: set[str] = set()
    events = next((name for name, role in found.items() if role.kind == "event" and role.events is not None), None)
    for name, role in found.items():
        match role.kind:
            case "event":
                yield from _event(name, role, active=name == events, events=events)
            case "label":
                yield from _label(name, role, active="label" not in taken and events is None, events=events)
                taken.add("label")
            case "amount" if name.lower() == "weight" and role.low > 0 and role.high > role.low:
                yield f"weight = {text(name)}  # {role.reason}"
            case "amount":
                yield from _amount(name, role, active="outcome" not in taken)
                taken |= {"outcome"} if role.low < 0 else set()
            case "rating":
                yield from _rating(name, role)
            case "assumed":
                yield from _assumed(name, role)
            case "said":
                yield f"# {name}: {role.reason}, so no field reads it"


def time_column(found: Mapping[str, Role]) -> str | None:
    """Return the column that `data.time` should name, if there is one."""
    times = (name for name, role in found.items() if role.kind == "time" and role.time is not None and role.time.readable)
    return next(times, None)


def _event(name: str, role: Role, *, active: bool, events: str | None) -> Iterator[str]:
    rule = role.events
    if rule is None:
        return
    parts = [f"column = {text(name)}", f"weights = {numbers(rule.weights)}"]
    parts += [f"left_out = {array(rule.left_out)}"] if rule.left_out else []
    parts += [f"not_taken = {array(rule.not_taken)}"] if rule.not_taken else []
    yield f"# {name} says what happened ({role.reason}), so no field reads it. The weights are a proposal:"
    if rule.left_out:
        yield "# what undoes another event is left out, as if its rows were not there"
    if rule.not_taken:
        yield "# what was shown and not taken does not count as an interaction; log loss learns from it"
    if rule.unknown and (len(rule.weights) > 1 or rule.left_out or rule.not_taken):
        yield f"# not known here, and counted as 1: {', '.join(rule.unknown)}"
    if not active:
        yield f"# of outcomes {events} is used; to use {name} instead:"
    yield f"{'' if active else '# '}events = {{ {', '.join(parts)} }}"


def _label(name: str, role: Role, *, active: bool, events: str | None) -> Iterator[str]:
    why = f"{role.reason}: a row of 0 was shown and not taken, and does not count as an interaction"
    if active:
        yield f"label = {text(name)}  # {why}"
        return
    other = "There is one label; to use this one" if events is None else f"Of outcomes {events} is used; to use this instead"
    yield f"# {name}: {why}. {other}:"
    yield f"# label = {text(name)}"


def _assumed(name: str, role: Role) -> Iterator[str]:
    """Draft alternatives for a column that is an outcome by its values only."""
    yield f"# {name} holds {role.reason}. Assumed: it tells what came of the interaction, so no field reads it."
    if role.levels:
        liked = next((level for level in role.levels if level >= role.low + _LIKED * (role.high - role.low)), role.high)
        yield "# If so, these lines use it: rows below are left out, or were shown and not taken, or rows weigh by it"
        yield f"# outcome = {{ column = {text(name)}, at_least = {liked:g} }}"
        yield f'# outcome = {{ column = {text(name)}, at_least = {liked:g}, below = "not taken" }}'
        yield f"# weight = {text(name)}{'' if role.low > 0 else '  # positive only together with a line above'}"
    else:
        yield "# If so, and if a row of 1 (or true) was taken and one of 0 (or false) shown and not taken, use this line:"
        yield f"# label = {text(name)}"
    yield "# If a request knows it before an item is chosen, write this line below [fields]:"
    yield f'# {key(name)} = {{ side = "user", kind = "categorical", source = "interactions" }}'


def _amount(name: str, role: Role, *, active: bool) -> Iterator[str]:
    if role.low == role.high:
        yield f"# {name}: {role.reason}; it is known only afterwards, so no field reads it"
        return
    yield f"# {name} holds {role.reason}, known only afterwards, so no field reads it."
    if role.low < 0 and active:
        least = next((level for level in role.levels if level > 0), 1.0)
        yield "# Rows of less than nothing (returns?) are left out; take the line out to count every row:"
        yield f"outcome = {{ column = {text(name)}, at_least = {least:g} }}"
        return
    yield "# Every row counts alike until one of these lines is used: those below are left out, or rows weigh by it"
    yield f"# outcome = {{ column = {text(name)}, at_least = {_middle(role):g} }}"
    more = "  # positive only together with a line above" if role.low <= 0 else ""
    yield f"# weight = {text(name)}{more}"


def _rating(name: str, role: Role) -> Iterator[str]:
    liked = next((level for level in role.levels if level >= role.low + _LIKED * (role.high - role.low)), role.high)
    yield f"# {name} holds {role.reason}, known only afterwards, so no field reads it."
    yield "# Every row counts as liked, whatever it holds, until one of these lines is used: rows below are left out, or were"
    yield "# shown and not taken, or rows weigh by it"
    yield f"# outcome = {{ column = {text(name)}, at_least = {liked:g} }}"
    yield f'# outcome = {{ column = {text(name)}, at_least = {liked:g}, below = "not taken" }}'
    if role.low > 0:
        yield f"# weight = {text(name)}"


def _middle(role: Role) -> float:
    positive = [level for level in role.levels if level > 0]
    return positive[len(positive) // 2] if positive else role.high
