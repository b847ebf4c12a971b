"""Report the size of each part of the split, against the configured one."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from recall.config import (
    AutoConfig,
    ColumnSplit,
    DataConfig,
    HashSplit,
    ItemsSplit,
    LastSplit,
    NoSplit,
    RandomSplit,
    RunConfig,
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
_KEYS = {VALID: "valid", TEST: "test"}
_BATCH_ROWS = 1 << 20  # rows that are compared at a time, which bounds memory
_MAX_DEVIATION = 0.25  # relative deviation from the configured share that is reported. Chosen, not tuned.
_SIGMAS = 3.0  # standard deviations that a random share may deviate
_MAX_KNOWN = 0.5  # share of the test pairs known from training that is a warning. Chosen, not tuned.


@dataclass(frozen=True, slots=True)
class PartSize:
    """The size of one part.

    Attributes:
        rows: number of interactions.
        users: number of distinct users.
        items: number of distinct items.
        share: of all interactions that train, validate or test; 0 for others.
    """

    rows: int
    users: int
    items: int
    share: float

    def __str__(self) -> str:
        return f"{self.rows:,} ({self.share:.1%}, {self.users:,} user{'s' * (self.users != 1)})"

    @property
    def without_share(self) -> str:
        """The size without a share, for rows outside of the split."""
        return f"{self.rows:,} of {self.users:,} user{'s' * (self.users != 1)}"


def part_sizes(dataset: Dataset) -> dict[int, PartSize]:
    """Return the size of each part; train, valid and test are there even if empty."""
    split = dataset.events["split"].to_numpy()
    user, item = dataset.events["user"].to_numpy(), dataset.events["item"].to_numpy()
    whole = max(int((split >= TRAIN).sum()), 1)
    sizes = {}
    for part in _NAMES:
        rows = np.flatnonzero(split == part)
        if part >= TRAIN or len(rows):
            share = len(rows) / whole if part >= TRAIN else 0.0
            sizes[part] = PartSize(len(rows), len(np.unique(user[rows])), len(np.unique(item[rows])), share)
    return sizes


def parts_line(dataset: Dataset) -> str:
    """Describe the sizes of all parts on one line.

    Shares are of what trains, validates or tests.
    """
    sizes = part_sizes(dataset)
    parts = [f"{size} {_NAMES[part]}" for part, size in sizes.items() if part >= TRAIN]
    parts += [f"besides {size.without_share} {_NAMES[part]}" for part, size in sizes.items() if part < TRAIN]
    return ", ".join(parts)


def part_findings(config: RunConfig, dataset: Dataset) -> Iterator[Finding]:
    """Report the size of each part.

    Warns where a part is empty or far from its configured size, and where the test pairs are known already.

    Args:
        config: of the run.
        dataset: split.
    """
    data, sizes = config.data, part_sizes(dataset)
    if isinstance(data.split, NoSplit) and not data.carve and not data.carve_last:
        yield from _early_stopping_findings(config, sizes)
        return
    yield _finding("note", f"parts: {parts_line(dataset)}", sizes[TRAIN].rows)
    for part in (VALID, TEST):
        configured = _configured_share(data, part)
        share = _actual_share(data, dataset, sizes, part)
        if configured > 0 and not sizes[part].rows:
            yield _finding("warning", f"data.split asks for a {_KEYS[part]} part, but no interaction is in it", 0)
        elif 0 < configured < 1 and _is_far(share, configured, data, dataset):
            what = "users" if isinstance(data.split, UsersSplit) else "items" if isinstance(data.split, ItemsSplit) else "rows"
            message = f"{share:.1%} of the {what} {_NAMES[part]}, where data.split asks for {configured:.1%}"
            if isinstance(data.split, TimeSplit):
                message += ": many rows share the time at the bound, and all of them come after it"
            yield _finding("warning", message, sizes[part].rows)
    yield from _early_stopping_findings(config, sizes)
    yield from _known_pair_findings(config, dataset)


def _finding(level: Level, message: str, count: int) -> Finding:
    return Finding(level, "interactions", "", message, count)


def _configured_share(data: DataConfig, part: int) -> float:
    """Return the configured share; 1 for a part of unknown size, 0 for none."""
    rule = data.split
    carved = data.carve or (1.0 if data.carve_last else 0.0)
    match rule:
        case HashSplit():
            share = rule.test if part == TEST else rule.valid
        case LastSplit():
            share = float((rule.test if part == TEST else rule.valid) > 0)
        case TimeSplit(test=test, valid=valid):
            if part == TEST:
                share = 1 - test if 0 < test < 1 else 1.0
            elif valid is None:
                share = 0.0
            else:
                share = test - valid if 0 < valid < 1 and 0 < test < 1 else 1.0
        case ColumnSplit():
            share = float(part == TEST)
        case _:
            share = 0.0
    return carved if part == VALID and not share else share


def _actual_share(data: DataConfig, dataset: Dataset, sizes: dict[int, PartSize], part: int) -> float:
    """Return the share that a part has, of what the split divides."""
    if isinstance(data.split, UsersSplit):
        return sizes[part].users / max(dataset.events["user"].n_unique(), 1)
    if isinstance(data.split, ItemsSplit):
        return sizes[part].items / max(dataset.events["item"].n_unique(), 1)
    if part == VALID and data.carve and not isinstance(data.split, HashSplit | TimeSplit):
        return sizes[VALID].rows / max(sizes[VALID].rows + sizes[TRAIN].rows, 1)
    return sizes[part].share


def _is_far(share: float, configured: float, data: DataConfig, dataset: Dataset) -> bool:
    n = len(dataset.events)
    if isinstance(data.split, UsersSplit):
        n = dataset.events["user"].n_unique()
    elif isinstance(data.split, ItemsSplit):
        n = dataset.events["item"].n_unique()
    elif isinstance(data.split, RandomSplit):
        n = dataset.events.select("user", "item").n_unique()
    chance = _SIGMAS * (configured * (1 - configured) / n) ** 0.5 if isinstance(data.split, HashSplit) else 1 / n
    return abs(share - configured) > max(_MAX_DEVIATION * configured, chance)


def _early_stopping_findings(config: RunConfig, sizes: dict[int, PartSize]) -> Iterator[Finding]:
    """Report what happens to early stopping where nothing validates."""
    if sizes[VALID].rows:
        if config.data.carve and _configured_share(config.data.model_copy(update={"carve": 0.0, "carve_last": 0}), VALID):
            yield _finding("note", "data.carve does nothing: the split itself gives a validation part", 0)
        return
    if isinstance(config.train, AutoConfig):
        held = "the last training interaction of each user" if config.data.time is not None else "a tenth of the training part"
        yield _finding(
            "note", f"no interaction validates: the race of recipes holds out {held}, and the winner trains on it", 0
        )
        return
    message = f"no interaction validates: all {config.train.sweeps} passes are made and the last model is kept, not the best"
    if "stopping" in config.train.model_fields_set:
        hint = "train.stopping has nothing to look at; set data.carve, data.carve_last or the split's valid"
        yield _finding("warning", f"{message}; {hint}", 0)
    elif not isinstance(config.data.split, NoSplit):
        yield _finding("note", message, 0)


def _known_pair_findings(config: RunConfig, dataset: Dataset) -> Iterator[Finding]:
    """Report held-out pairs that are known already, which masking leaves out."""
    if config.evaluation.mask == "none":
        return
    keys = ["user", "item", *(dataset.context_columns if config.evaluation.mask == "context" else ())]
    for part, name in ((VALID, "validation"), (TEST, "test")):
        held_out = dataset.events.select(keys).filter(dataset.events["split"] == part)
        if held_out.is_empty():
            continue
        # those that are judged are far fewer, and so is the table that is built of them
        distinct_pairs = held_out.unique()
        known = pl.concat(
            rows.filter(pl.col("split") < part).select(keys).join(distinct_pairs, on=keys, how="semi", nulls_equal=True)
            for rows in dataset.events.iter_slices(_BATCH_ROWS)
        )
        repeated = len(held_out.join(known, on=keys, how="semi", nulls_equal=True))
        if not repeated:
            continue
        level: Level = "warning" if repeated >= _MAX_KNOWN * len(held_out) else "note"
        message = (
            f"{repeated:,} of {len(held_out):,} {name} pairs are known from before: evaluation.mask = "
            f'"{config.evaluation.mask}" leaves known items out of the answers, so each counts as a miss'
        )
        if level == "warning":
            message += '; set evaluation.mask = "none" where repeats are to be recommended, or leave the repeats out'
        yield _finding(level, message, repeated)
