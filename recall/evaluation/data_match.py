"""Compare the data of a bundle with other data, or with those of another bundle."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import polars as pl

from recall._arrays import Integers
from recall.bundle.reader import Bundle
from recall.config import LastSplit, RunConfig
from recall.config.run import parse_config
from recall.data.dataset import Dataset
from recall.data.split import TEST, TRAIN
from recall.errors import BundleError, ConfigError, DataError
from recall.store.users.bundle_users import SqliteUsers
from recall.store.users.record import UserRecord

_SAMPLE = 500  # users whose interactions are compared
_MAX_LEARNT = 0.01  # tolerated share of held-out interactions, as a table may lose a few rows. Chosen, not tuned.
_MIN_IDS = 0.05  # share of common ids below which the data sets are different
_MIN_PAIRS = 0.1  # the same for interactions: numeric ids occur in any data set, interactions do not
_MIN_COMPARED = 100  # interactions of two bundles below which their overlap is not significant


@dataclass(frozen=True, slots=True)
class DataMatch:
    """Shares of a data set that a bundle contains.

    Attributes:
        items: share of the items with training interactions that are in the bundle's catalogue.
        users: share of the users with training interactions that the bundle stores; None if it stores no users.
        pairs: share of the common users' training interactions that the bundle stores; None if it stores no interaction of
            them.
        fields: description of the first difference between the fields; empty without differences.
    """

    items: float
    users: float | None
    pairs: float | None
    fields: str

    @property
    def foreign(self) -> bool:
        """Whether the bundle was trained on a different data set."""
        few_users = self.users is not None and self.users < _MIN_IDS
        return self.items < _MIN_IDS or few_users or (self.pairs is not None and self.pairs < _MIN_PAIRS)

    @property
    def unrelated(self) -> bool:
        """Whether almost no ids of items and users are common."""
        return self.items < _MIN_IDS and (self.users is None or self.users < _MIN_IDS)

    def __str__(self) -> str:
        known = [f"{self.items:.1%} of the items"]
        known += [] if self.users is None else [f"{self.users:.1%} of the users"]
        known += [] if self.pairs is None else [f"{self.pairs:.1%} of the training interactions of known users"]
        return f"it knows {', '.join(known)}{f'; {self.fields}' if self.fields else ''}"


def match_data(dataset: Dataset, bundle: Bundle, stored: int, record: Callable[[str], UserRecord | None]) -> DataMatch:
    """Compare the training part of a data set with a bundle's ids and interactions.

    Args:
        dataset: the split data set.
        bundle: the bundle.
        stored: number of users in the bundle.
        record: returns the bundle's record of a user.
    """
    schema = dataset.schema
    training = dataset.events[dataset.training]
    item_ids, user_ids = dataset.items[schema.item_id], dataset.users[schema.user_id]
    items = item_ids.gather(training["item"].unique()).to_list()
    known_items = float((bundle.item_ids.rows(items) >= 0).mean())
    chosen = _sampled_users(training)
    records = {int(row): record(user_ids[int(row)]) for row in chosen} if stored else {}
    seen = {row: set(user.seen) for row, user in records.items() if user is not None}
    compared = training.filter(training["user"].is_in(list(seen))).select("user", "item").unique()
    pairs: float | None = None
    if any(seen.values()) and len(compared):
        ids = item_ids.gather(compared["item"]).to_list()
        pairs = sum(item in seen[user] for user, item in zip(compared["user"].to_list(), ids, strict=True)) / len(compared)
    return DataMatch(known_items, len(seen) / len(chosen) if stored else None, pairs, bundle.encoder.schema.difference(schema))


def _sampled_users(events: pl.DataFrame) -> Integers:
    """Return the rows of some users of interactions, rising: integer [at most 500]."""
    users = events["user"].unique().sort().to_numpy()
    return np.sort(np.random.default_rng(0).choice(users, min(len(users), _SAMPLE), replace=False))


def refuse_foreign(
    dataset: Dataset, bundle: Bundle, stored: int, record: Callable[[str], UserRecord | None], *, all_new: bool = False
) -> None:
    """Check that a bundle was trained on the same data set.

    Args:
        dataset: as for `match_data`.
        bundle: as for `match_data`.
        stored: as for `match_data`.
        record: as for `match_data`.
        all_new: the bundle was trained on none of these interactions, so only ids are compared.

    Raises:
        DataError: The bundle was trained on a different data set.
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
    record: Callable[[str], UserRecord | None],
    load: Callable[[RunConfig], Dataset],
) -> None:
    """Check that a bundle was not trained on the interactions that are evaluated.

    It may have been if it was trained with a different split, or with later interactions that these tables lack. The check is
    skipped if the bundle does not record its split, or if these tables cannot be split in that way.

    Args:
        dataset: the data set, split according to `config`.
        config: configuration of the evaluation.
        part: the evaluated part of the split.
        bundle: the bundle.
        record: returns the bundle's record of a user.
        load: loads the same tables with another configuration.

    Raises:
        DataError: The bundle was trained on evaluated interactions, which would inflate the metrics.
    """
    evaluated = dataset.select(part)
    _refuse_truncated(dataset, config, part, bundle, record)
    try:
        as_trained = _with_split_of(bundle, config)
        if as_trained is None or not len(evaluated):
            return
        parts = load(as_trained).events["split"].to_numpy()
    except (ConfigError, DataError):
        return
    if len(parts) != len(dataset.events):
        return
    rows = dataset.events[evaluated[parts[evaluated] == TRAIN]]
    user_ids, item_ids = dataset.users[dataset.schema.user_id], dataset.items[dataset.schema.item_id]
    seen = {row: set(user.seen) for row in rows["user"].unique() if (user := record(user_ids[row])) is not None}
    pairs = zip(rows["user"].to_list(), item_ids.gather(rows["item"]).to_list(), strict=True)
    learnt = sum(user in seen and item in seen[user] for user, item in pairs)
    if learnt:
        split = as_trained.data.split.model_dump(mode="json")
        raise DataError(
            f"bundle {bundle.manifest.version} was trained on {learnt:,} of the {len(evaluated):,} held-out interactions",
            where="data.split",
            why=f"it was trained with data.split = {split} and seed = {as_trained.seed}",
            hint="Evaluate with the data.split and seed that it was trained with, or train with these",
        )


def _refuse_truncated(
    dataset: Dataset, config: RunConfig, part: int, bundle: Bundle, record: Callable[[str], UserRecord | None]
) -> None:
    """Check that the tables do not lack later interactions of the training data.

    With a split by each user's last interactions, only the latest interactions of the bundle's histories were not trained on.
    Skipped if repeats are merged, because a merged row moves to the end by itself.
    """
    rule, recorded = config.data.split, bundle.manifest.config.get("data")
    same = isinstance(recorded, dict) and recorded.get("split") == rule.model_dump(mode="json")
    if part != TEST or not isinstance(rule, LastSplit) or not same or config.data.repeats == "merge":
        return
    evaluated = dataset.events[dataset.select(part)]
    chosen = _sampled_users(evaluated)
    user_ids, item_ids = dataset.users[dataset.schema.user_id], dataset.items[dataset.schema.item_id]
    before = dataset.events.filter(pl.col("split") < part).select("user", "item")
    rows = evaluated.filter(pl.col("user").is_in(chosen)).select("user", "item").join(before, on=["user", "item"], how="anti")
    learnt = 0
    for (user,), own in rows.group_by("user"):
        stored = record(user_ids[int(user)])
        if stored is not None:
            trained_on = set(stored.seen) - set(stored.history[: rule.valid + rule.test])
            learnt += sum(item in trained_on for item in item_ids.gather(own["item"]))
    total = int(evaluated["user"].is_in(chosen).sum())
    if learnt > _MAX_LEARNT * total:
        raise DataError(
            f"bundle {bundle.manifest.version} was trained on {learnt:,} of {total:,} held-out interactions",
            where="data.interactions",
            why="it stores later interactions of these users, which the table lacks",
            hint="Give the table with all interactions that it was trained on",
        )


def _with_split_of(bundle: Bundle, config: RunConfig) -> RunConfig | None:
    """Return `config` with the split of a bundle; None if it is equal or unknown."""
    recorded, values = bundle.manifest.config.get("data"), config.model_dump(mode="json", by_alias=True)
    if not isinstance(recorded, dict) or "split" not in recorded:
        return None
    names = ("split", "carve", "carve_last")
    values["data"] |= {name: recorded[name] for name in names if name in recorded}
    values["seed"] = bundle.manifest.seed
    changed = parse_config(values)
    same = all(getattr(changed.data, name) == getattr(config.data, name) for name in names) and changed.seed == config.seed
    return None if same else changed


def differences(bundle: Bundle, served: Bundle) -> Iterator[str]:
    """Describe why two bundles come from different data sets, if they do.

    Ids and a sample of interactions are compared.

    Args:
        bundle: a bundle.
        served: the live version.

    Raises:
        BundleError: A file cannot be read.
    """
    mine, theirs = bundle.encoder.schema, served.encoder.schema
    for one, other in ((mine.user_id, theirs.user_id), (mine.item_id, theirs.item_id)):
        if one != other:
            yield f"its ids are in a column {one!r}, and those of the served version in {other!r}"
    smaller, larger = sorted((bundle.item_ids, served.item_ids), key=len)
    items = float(np.mean(larger.rows(smaller.values.to_list()) >= 0))
    if items < _MIN_IDS:
        yield f"{items:.1%} of the item ids are in both catalogues"
    pairs = _shared_interactions(bundle, served)
    if pairs is not None and pairs < _MIN_PAIRS:
        yield f"{pairs:.1%} of the interactions of common users are the same"


def refuse_other_data(bundle: Bundle, served: Bundle) -> None:
    """Check that a bundle comes from the same data set as the live version.

    Args:
        bundle: the bundle.
        served: the live version.

    Raises:
        BundleError: The bundle comes from a different data set.
    """
    found = list(differences(bundle, served))
    if found:
        raise BundleError(
            f"the version comes from another data set than {served.manifest.version}, which is served",
            where=str(bundle.folder),
            why="; ".join(found),
            hint="Give a version of the data that this root serves, or another root; "
            "add --other-data if this root is to serve the other data from now on",
        )


def _shared_interactions(bundle: Bundle, served: Bundle) -> float | None:
    """Return the share of interactions of common users that both bundles have.

    It is of the bundle with fewer of them; None if these are too few to compare.
    """
    with closing(SqliteUsers(bundle.users_file)) as mine, closing(SqliteUsers(served.users_file)) as theirs:
        common = own = other = 0
        for user_id in theirs.sample(_SAMPLE, 0):
            in_bundle, in_served = mine.get(user_id), theirs.get(user_id)
            if in_bundle is not None and in_served is not None:
                common += len(set(in_bundle.seen) & set(in_served.seen))
                own += len(in_bundle.seen)
                other += len(in_served.seen)
        fewer = min(own, other)
        return common / fewer if fewer >= _MIN_COMPARED else None
