"""Report the size of each part of the split, against the configured one."""

from collections.abc import Iterator

import polars as pl

from recall.config import (
    AutoConfig,
    ColumnSplit,
    HashSplit,
    ItemsSplit,
    LastSplit,
    NoSplit,
    RandomSplit,
    RunConfig,
    Split,
    TimeSplit,
    UsersSplit,
)
from recall.data.dataset import Dataset
from recall.data.findings import Finding, Level
from recall.data.split import GIVEN, REMEMBERED, TEST, TRAIN, VALID

_NAMES = {
    TRAIN: "train",
    VALID: "validate",
    TEST: "test",
    GIVEN: "are given with requests",
    REMEMBERED: "are known from the bundle",
}
_BATCH_ROWS = 1 << 20  # rows that are compared at a time, which bounds memory
_MAX_DEVIATION = 0.25  # relative deviation from the configured share that is reported. Chosen, not tuned.
_SIGMAS = 3.0  # standard deviations that a random share may deviate
_MAX_KNOWN = 0.5  # share of the test pairs known from training that is a warning. Chosen, not tuned.


Sizes = dict[int, dict[str, int]]
"""Number of rows, users and items by part."""


def parts_line(dataset: Dataset) -> str:
    """Describe the sizes of all parts on one line.

    Shares are of what trains, validates or tests.
    """
    return _describe(_part_sizes(dataset))


def part_findings(config: RunConfig, dataset: Dataset) -> Iterator[Finding]:
    """Report the size of each part.

    Warns where a part is empty or far from its configured size, and where the test pairs are known already.

    Args:
        config: configuration of the run.
        dataset: the split data set.
    """
    data, sizes = config.data, _part_sizes(dataset)
    if isinstance(data.split, NoSplit) and not data.carve and not data.carve_last:
        yield from _early_stopping_findings(config, sizes)
        return
    yield Finding("note", f"parts: {_describe(sizes)}", sizes[TRAIN]["rows"], "interactions")
    for part, key in ((VALID, "valid"), (TEST, "test")):
        configured = _share_of_split(data.split, part)
        if part == VALID and not configured:
            configured = data.carve or float(data.carve_last > 0)
        if configured > 0 and not sizes[part]["rows"]:
            message = f"data.split asks for a {key} part, but no interaction is in it"
            yield Finding("warning", message, 0, "interactions")
        elif 0 < configured < 1:
            yield from _share_findings(config, dataset, sizes, part, configured)
    yield from _early_stopping_findings(config, sizes)
    yield from _known_pair_findings(config, dataset)


def _part_sizes(dataset: Dataset) -> Sizes:
    """Return the size of each part; train, valid and test are there even if empty."""
    columns = {"rows": pl.len(), "users": pl.col("user").n_unique(), "items": pl.col("item").n_unique()}
    sizes = {row.pop("split"): row for row in dataset.events.group_by("split").agg(**columns).iter_rows(named=True)}
    empty = dict.fromkeys(columns, 0)
    return {part: sizes.get(part, empty) for part in _NAMES if part >= TRAIN or part in sizes}


def _describe(sizes: Sizes) -> str:
    total = max(sum(size["rows"] for part, size in sizes.items() if part >= TRAIN), 1)
    parts = []
    for part, size in sizes.items():
        users = f"{size['users']:,} user{'s' * (size['users'] != 1)}"
        share = (
            f"{size['rows']:,} ({size['rows'] / total:.1%}, {users})"
            if part >= TRAIN
            else f"besides {size['rows']:,} of {users}"
        )
        parts.append(f"{share} {_NAMES[part]}")
    return ", ".join(parts)


def _share_of_split(rule: Split, part: int) -> float:
    """Return the share that the split gives a part; 1 if its size is not known."""
    match rule:
        case HashSplit():
            return rule.test if part == TEST else rule.valid
        case LastSplit():
            return float((rule.test if part == TEST else rule.valid) > 0)
        case TimeSplit() if part == TEST:
            return 1 - rule.test if 0 < rule.test < 1 else 1.0
        case TimeSplit(valid=float(valid)):
            return rule.test - valid if 0 < valid < 1 and 0 < rule.test < 1 else 1.0
        case ColumnSplit():
            return float(part == TEST)
    return 0.0


def _share_findings(config: RunConfig, dataset: Dataset, sizes: Sizes, part: int, configured: float) -> Iterator[Finding]:
    """Report a part with a share far from the configured one."""
    rule, events = config.data.split, dataset.events
    unit, drawn = "rows", len(events)
    total = sum(size["rows"] for number, size in sizes.items() if number >= TRAIN)
    if isinstance(rule, UsersSplit | ItemsSplit):
        unit = rule.by
        drawn = total = events[unit.removesuffix("s")].n_unique()
    elif isinstance(rule, RandomSplit):
        drawn = events.select("user", "item").n_unique()
    elif part == VALID and config.data.carve and not isinstance(rule, TimeSplit):
        total = sizes[VALID]["rows"] + sizes[TRAIN]["rows"]
    share = sizes[part][unit] / max(total, 1)
    chance = _SIGMAS * (configured * (1 - configured) / drawn) ** 0.5 if isinstance(rule, HashSplit) else 1 / drawn
    if abs(share - configured) > max(_MAX_DEVIATION * configured, chance):
        message = f"{share:.1%} of the {unit} {_NAMES[part]}, where data.split asks for {configured:.1%}"
        if isinstance(rule, TimeSplit):
            message += ": many rows share the time at the bound, and all of them come after it"
        yield Finding("warning", message, sizes[part]["rows"], "interactions")


def _early_stopping_findings(config: RunConfig, sizes: Sizes) -> Iterator[Finding]:
    """Report what happens to early stopping where nothing validates."""
    message = ""
    level: Level = "note"
    if sizes[VALID]["rows"]:
        if config.data.carve and _share_of_split(config.data.split, VALID):
            message = "data.carve does nothing: the split itself gives a validation part"
    elif isinstance(config.train, AutoConfig):
        hold_out = (
            "the last training interaction of each user" if config.data.time is not None else "a tenth of the training part"
        )
        message = f"no interaction validates: the race of recipes holds out {hold_out}, and the winner trains on it"
    elif not isinstance(config.data.split, NoSplit) or "stopping" in config.train.model_fields_set:
        message = (
            f"no interaction validates: all {config.train.sweeps} passes are made and the last model is kept, not the best"
        )
        if "stopping" in config.train.model_fields_set:
            level = "warning"
            message += "; train.stopping requires a validation part; set data.carve, data.carve_last or the split's valid"
    if message:
        yield Finding(level, message, 0, "interactions")


def _known_pair_findings(config: RunConfig, dataset: Dataset) -> Iterator[Finding]:
    """Report held-out pairs that are known already, which masking leaves out."""
    if config.evaluation.mask == "none":
        return
    keys = ["user", "item", *(dataset.context_columns if config.evaluation.mask == "context" else ())]
    for part, name in ((VALID, "validation"), (TEST, "test")):
        hold_out = dataset.events.select(keys).filter(dataset.events["split"] == part)
        if hold_out.is_empty():
            continue
        # those that are judged are far fewer, and so is the table that is built of them
        distinct_pairs = hold_out.unique()
        known = pl.concat(
            rows.filter(pl.col("split") < part).select(keys).join(distinct_pairs, on=keys, how="semi", nulls_equal=True)
            for rows in dataset.events.iter_slices(_BATCH_ROWS)
        )
        repeated = len(hold_out.join(known, on=keys, how="semi", nulls_equal=True))
        message = (
            f"{repeated:,} of {len(hold_out):,} {name} pairs are known from before: evaluation.mask = "
            f'"{config.evaluation.mask}" leaves known items out of the answers, so each counts as a miss'
        )
        if repeated >= _MAX_KNOWN * len(hold_out):
            message += '; set evaluation.mask = "none" where repeats are to be recommended, or leave the repeats out'
            yield Finding("warning", message, repeated, "interactions")
        elif repeated:
            yield Finding("note", message, repeated, "interactions")
