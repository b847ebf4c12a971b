"""Compare the data of a bundle with other data, or with those of another bundle."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import polars as pl

from recall.bundle.reader import Bundle
from recall.config import LastSplit, RunConfig
from recall.config.run import parse_config
from recall.data.dataset import Dataset
from recall.data.incremental import RememberedUser
from recall.data.split import TEST, TRAIN
from recall.errors import BundleError, ConfigError, DataError
from recall.store.users.bundle_users import SqliteUsers

_SAMPLE = 500  # users whose interactions are compared
_FEW_LEARNT = 0.01  # share of held-out interactions, as a few rows may be deleted from a table. Chosen, not tuned.
_FEW_IDS = 0.05  # share of known ids below which a bundle is of other data
_FEW_PAIRS = 0.1  # numbers as ids occur in any data set, interactions do not
_ENOUGH = 100  # interactions of two bundles below which a share says nothing


@dataclass(frozen=True, slots=True)
class DataMatch:
    """Share of a data set that a bundle knows.

    Attributes:
        items: share of the items with a training interaction that are in its catalogue.
        users: share of the users with a training interaction that it stores; None where it stores no users.
        pairs: share of their training interactions that it has seen; None where it has seen nothing of known users.
        fields: the first difference between the fields, in words; empty when there is none.
    """

    items: float
    users: float | None
    pairs: float | None
    fields: str

    @property
    def foreign(self) -> bool:
        """Whether the bundle was trained on other data than these."""
        few_users = self.users is not None and self.users < _FEW_IDS
        return self.items < _FEW_IDS or few_users or (self.pairs is not None and self.pairs < _FEW_PAIRS)

    @property
    def unrelated(self) -> bool:
        """Whether the bundle knows almost none of the ids, old or new."""
        return self.items < _FEW_IDS and (self.users is None or self.users < _FEW_IDS)

    def __str__(self) -> str:
        known = [f"{self.items:.1%} of the items"]
        known += [] if self.users is None else [f"{self.users:.1%} of the users"]
        known += [] if self.pairs is None else [f"{self.pairs:.1%} of the training interactions of known users"]
        return f"it knows {', '.join(known)}{f'; {self.fields}' if self.fields else ''}"


def match_data(dataset: Dataset, bundle: Bundle, stored: int, record: Callable[[str], RememberedUser | None]) -> DataMatch:
    """Compare the training part of a data set with what a bundle knows.

    Args:
        dataset: the interactions, split.
        bundle: the bundle.
        stored: number of users that it stores.
        record: gives what it stores of a user.
    """
    schema = dataset.schema
    training = dataset.events[dataset.training]
    item_ids, user_ids = dataset.items[schema.item_id], dataset.users[schema.user_id]
    items = item_ids.gather(training["item"].unique()).to_list()
    known_items = float((bundle.item_ids.rows(items) >= 0).mean())
    rows = training["user"].unique().sort().to_numpy()
    chosen = np.sort(np.random.default_rng(0).choice(rows, min(len(rows), _SAMPLE), replace=False))
    records = {int(row): record(user_ids[int(row)]) for row in chosen} if stored else {}
    found = {row: one for row, one in records.items() if one is not None}
    taken = training.filter(training["user"].is_in(list(found))).select("user", "item").unique()
    seen = {row: set(one.seen) for row, one in found.items()}
    pairs: float | None = None
    if any(seen.values()) and len(taken):
        ids = item_ids.gather(taken["item"]).to_list()
        pairs = sum(item in seen[user] for user, item in zip(taken["user"].to_list(), ids, strict=True)) / len(taken)
    return DataMatch(known_items, len(found) / len(chosen) if stored else None, pairs, bundle.encoder.schema.difference(schema))


def refuse_foreign(
    dataset: Dataset, bundle: Bundle, stored: int, record: Callable[[str], RememberedUser | None], *, all_new: bool = False
) -> None:
    """Check that a bundle was trained on the same data.

    Args:
        dataset: as for `match_data`.
        bundle: as for `match_data`.
        stored: as for `match_data`.
        record: as for `match_data`.
        all_new: the bundle was trained on none of these interactions, so that only ids can be known.

    Raises:
        DataError: It was trained on other data.
    """
    if bundle.manifest.data_hash == dataset.fingerprint():
        return
    match = match_data(dataset, bundle, stored, record)
    if match.unrelated if all_new else match.foreign:
        raise DataError(
            f"bundle {bundle.manifest.version} was trained on other data than these tables",
            where=str(bundle.folder),
            why=str(match),
            hint="Give the bundle that was trained on these tables, or the configuration and the tables of this bundle",
        )


def refuse_trained_on(
    dataset: Dataset,
    config: RunConfig,
    part: int,
    bundle: Bundle,
    record: Callable[[str], RememberedUser | None],
    load: Callable[[RunConfig], Dataset],
) -> None:
    """Check that a bundle was not trained on the interactions that are evaluated.

    A bundle trained with another split may have been, and one whose tables had later interactions that these lack. Where it
    does not record its split, or these tables cannot be split so, nothing is known and nothing is refused.

    Args:
        dataset: the interactions, split as `config` says.
        config: of the evaluation.
        part: the one that is evaluated.
        bundle: the bundle.
        record: returns what it stores of a user.
        load: reads the same tables with another configuration.

    Raises:
        DataError: Some of them were trained on, which would inflate the figures.
    """
    judged = dataset.select(part)
    _refuse_shortened(dataset, config, part, bundle, record)
    try:
        as_trained = _split_as(bundle, config)
        if as_trained is None or not len(judged):
            return
        parts = load(as_trained).events["split"].to_numpy()
    except (ConfigError, DataError):
        return
    if len(parts) != len(dataset.events):
        return
    rows = dataset.events[judged[parts[judged] == TRAIN]]
    user_ids, item_ids = dataset.users[dataset.schema.user_id], dataset.items[dataset.schema.item_id]
    seen = {row: set(found.seen) for row in rows["user"].unique() if (found := record(user_ids[row])) is not None}
    pairs = zip(rows["user"].to_list(), item_ids.gather(rows["item"]).to_list(), strict=True)
    learnt = sum(user in seen and item in seen[user] for user, item in pairs)
    if learnt:
        split = as_trained.data.split.model_dump(mode="json")
        raise DataError(
            f"bundle {bundle.manifest.version} was trained on {learnt:,} of the {len(judged):,} interactions that are held out",
            where="data.split",
            why=f"it was trained with data.split = {split} and seed = {as_trained.seed}",
            hint="Evaluate with the data.split and seed that it was trained with, or train with these",
        )


def _refuse_shortened(
    dataset: Dataset, config: RunConfig, part: int, bundle: Bundle, record: Callable[[str], RememberedUser | None]
) -> None:
    """Check that no user's last interactions are earlier ones of a longer history.

    With a split by the last interactions of each user, those that a bundle was not trained on are the latest that it knows. Not
    checked where repeats are merged, since a merged row moves to the end by itself.
    """
    rule, recorded = config.data.split, bundle.manifest.config.get("data")
    same = isinstance(recorded, dict) and recorded.get("split") == rule.model_dump(mode="json")
    if part != TEST or not isinstance(rule, LastSplit) or not same or config.data.repeats == "merge":
        return
    judged = dataset.events[dataset.select(part)]
    users = judged["user"].unique().sort().to_numpy()
    chosen = np.sort(np.random.default_rng(0).choice(users, min(len(users), _SAMPLE), replace=False))
    user_ids, item_ids = dataset.users[dataset.schema.user_id], dataset.items[dataset.schema.item_id]
    before = dataset.events.filter(pl.col("split") < part).select("user", "item")
    rows = judged.filter(pl.col("user").is_in(chosen)).select("user", "item").join(before, on=["user", "item"], how="anti")
    learnt = 0
    for (user,), mine in rows.group_by("user"):
        found = record(user_ids[int(user)])
        if found is not None:
            trained_on = set(found.seen) - set(found.history[: rule.valid + rule.test])
            learnt += sum(item in trained_on for item in item_ids.gather(mine["item"]))
    of = int(judged["user"].is_in(chosen).sum())
    if learnt > _FEW_LEARNT * of:
        raise DataError(
            f"bundle {bundle.manifest.version} was trained on {learnt:,} of {of:,} interactions that are held out",
            where="data.interactions",
            why="it knows later interactions of these users, which the table lacks",
            hint="Give the table with all interactions that it was trained on",
        )


def _split_as(bundle: Bundle, config: RunConfig) -> RunConfig | None:
    """Return `config` with the split of a bundle; None where equal or unknown."""
    recorded, values = bundle.manifest.config.get("data"), config.model_dump(mode="json", by_alias=True)
    if not isinstance(recorded, dict) or "split" not in recorded:
        return None
    names = ("split", "carve", "carve_last")
    values["data"] |= {name: recorded[name] for name in names if name in recorded}
    values["seed"] = bundle.manifest.seed
    changed = parse_config(values)
    same = all(getattr(changed.data, name) == getattr(config.data, name) for name in names) and changed.seed == config.seed
    return None if same else changed


@dataclass(frozen=True, slots=True)
class Likeness:
    """Overlap of a bundle with the one that is served.

    Attributes:
        columns: id columns with another name, each as "its name, the served one".
        items: share of the smaller catalogue that is in the other one.
        pairs: share of what the users of both have taken that both know, of the bundle that knows less of them; None where
            that is too little to compare.
    """

    columns: tuple[tuple[str, str], ...]
    items: float
    pairs: float | None

    @property
    def other_data(self) -> bool:
        """Whether the bundles were made from different data sets."""
        return bool(self.columns) or self.items < _FEW_IDS or (self.pairs is not None and self.pairs < _FEW_PAIRS)

    def reasons(self) -> Iterator[str]:
        """Say what they do not have in common, one clause each."""
        for mine, served in self.columns:
            yield f"its ids are in a column {mine!r}, and those of the served version in {served!r}"
        if self.items < _FEW_IDS:
            yield f"{self.items:.1%} of the item ids are in both catalogues"
        if self.pairs is not None and self.pairs < _FEW_PAIRS:
            yield f"{self.pairs:.1%} of what their common users have taken is the same"


def compare_data(bundle: Bundle, served: Bundle) -> Likeness:
    """Compare the ids of two bundles, and the history of a sample of shared users.

    Args:
        bundle: one.
        served: the other one.

    Raises:
        BundleError: A file cannot be read.
    """
    mine, theirs = bundle.encoder.schema, served.encoder.schema
    names = ((mine.user_id, theirs.user_id), (mine.item_id, theirs.item_id))
    smaller, larger = sorted((bundle.item_ids, served.item_ids), key=len)
    shared = larger.rows(smaller.values.to_list()) >= 0
    return Likeness(
        columns=tuple((one, other) for one, other in names if one != other),
        items=float(np.mean(shared)),
        pairs=_pairs(bundle, served),
    )


def refuse_other_data(bundle: Bundle, served: Bundle) -> None:
    """Check that a bundle comes from the same data set as the one that is served.

    Args:
        bundle: the new one.
        served: the one that is served.

    Raises:
        BundleError: It comes from another data set.
    """
    likeness = compare_data(bundle, served)
    if likeness.other_data:
        raise BundleError(
            f"the version comes from another data set than {served.manifest.version}, which is served",
            where=str(bundle.folder),
            why="; ".join(likeness.reasons()),
            hint="Give a version of the data that this root serves, or another root; "
            "add --other-data if this root is to serve the other data from now on",
        )


def _pairs(bundle: Bundle, served: Bundle) -> float | None:
    if bundle.manifest.users_elsewhere is not None or served.manifest.users_elsewhere is not None:
        return None
    with closing(SqliteUsers(bundle.users_file)) as mine, closing(SqliteUsers(served.users_file)) as theirs:
        both = found = known = 0
        for user in theirs.sample(_SAMPLE, 0):
            ours, other = mine.get(user), theirs.get(user)
            if ours is not None and other is not None:
                both += len(set(ours.seen) & set(other.seen))
                found += len(ours.seen)
                known += len(other.seen)
        least = min(found, known)
        return both / least if least >= _ENOUGH else None
