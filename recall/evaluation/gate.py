"""Activate a published version unless it is worse than the live one."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from recall.bundle.activation import activate, find
from recall.bundle.versions import live_name
from recall.config import AutoConfig, RunConfig
from recall.data.dataset import Dataset
from recall.data.split import TEST, VALID
from recall.errors import ConfigError
from recall.evaluation.bootstrap import Estimate, Figures, PerRequestMetrics, compare, estimate
from recall.evaluation.data_match import refuse_foreign, refuse_trained_on
from recall.evaluation.evaluate import joint_catalogue, recommended_rows
from recall.evaluation.metrics import per_request
from recall.evaluation.protocol import held_out
from recall.serving.recommender import Recommender

Activation = Literal["never", "always", "if-not-worse"]
"""When a version goes live that has just been published."""


class GateReport(Figures):
    """Decision about a new version, and its reason."""

    version: str
    live: str | None
    """The version that was live before; None when none was."""
    activated: bool
    metric: str | None = None
    """The figure that decides, such as `ndcg@10`; None, as all below, where nothing was compared."""
    part: Literal["valid", "test"] | None = None
    requests: int | None = None
    new: Estimate | None = None
    old: Estimate | None = None
    difference: Estimate | None = None
    """Of the new version from the live one, over the same requests."""

    @property
    def worse(self) -> bool:
        """Whether it was not activated because its interval lies below the live one's."""
        return not self.activated and self.difference is not None

    def lines(self) -> dict[str, str]:
        """Return the figures and the decision as named lines."""
        if self.live is None:
            decided = f"{self.version} is live; no version was live before to compare with"
            return {"activation": decided if self.activated else f"{self.version} was not activated, as requested"}
        decided = f"{self.version} is live" if self.activated else f"{self.live} stays live"
        if self.difference is None or self.new is None or self.old is None:
            return {"activation": f"{decided}, as requested"}
        why = "with an interval below 0" if self.worse else "with an interval that is not below 0"
        return {
            "new": f"{self.metric} {self.new.interval()}, {self.version}",
            "live": f"{self.metric} {self.old.interval()}, {self.live}",
            "difference": f"{self.difference.interval('+')} on {self.requests:,} requests of the {self.part} part",
            "activation": f"{decided}: the new version differs by {self.difference.value:+.4f}, {why}",
        }


def activates_at_once(activation: Activation, root: Path) -> bool:
    """Return whether a version goes live on publication, without a comparison.

    Args:
        activation: requested mode.
        root: the folder of versions.
    """
    return activation == "always" or (activation == "if-not-worse" and not live_name(root))


def require_comparable(
    root: Path,
    dataset: Dataset,
    config: RunConfig,
    load: Callable[[RunConfig], Dataset],
    *,
    all_new: bool = False,
) -> None:
    """Check that a version trained on these data could be compared with the live one.

    Nothing is checked where no version is live.

    Args:
        root: the folder of versions.
        dataset: the data, split.
        config: of the run.
        load: reads the same tables with another configuration.
        all_new: the live version was trained on none of these interactions.

    Raises:
        ConfigError: Nothing is held out, or there would be no interval.
        DataError: The live version was trained on other data, or on the held-out interactions.
    """
    if not live_name(root):
        return
    if not config.evaluation.intervals:
        raise ConfigError(
            "the decision needs a confidence interval",
            where="evaluation.intervals",
            hint="Set it to a positive number; the default is 1000",
        )
    parts = (TEST,) if isinstance(config.train, AutoConfig) else (TEST, VALID)
    part = next((part for part in parts if len(dataset.select(part))), None)
    if part is None:
        raise ConfigError(
            "nothing is held out to compare with the live version on",
            where="data.split",
            why="the winner of a race trains on the validation part, too" if isinstance(config.train, AutoConfig) else "",
            hint="Let the split have a test part, or add --activate never or --activate always",
        )
    with Recommender.load(root, verify=False, users=None) as live:
        refuse_foreign(dataset, live.bundle, len(live.users), live.users.get, all_new=all_new)
        refuse_trained_on(dataset, config, part, live.bundle, live.users.get, load)


def settle(activation: Activation, folder: Path, root: Path, before: str, dataset: Dataset, config: RunConfig) -> GateReport:
    """Compare a version with the live one, and activate it unless it is worse.

    Both answer the requests of the test part, or of the validation part without a test part.

    Args:
        activation: requested mode.
        folder: of the new version, which is live already where `activates_at_once`.
        root: the folder of versions.
        before: name of the version that was live before; empty when none was.
        dataset: with the interactions that are held out.
        config: with the figure that decides: `train.stopping`.

    Raises:
        VersionMovedError: Another version went live meanwhile; the new one is not activated.
        PublishError: The file system refused.
    """
    if activation != "if-not-worse" or not before:
        return GateReport(version=folder.name, live=before or None, activated=activation != "never")
    part = TEST if len(dataset.select(TEST)) else VALID
    metric = f"{config.train.stopping.metric}@{config.train.stopping.at}"
    threads = os.cpu_count() or 1
    with (
        Recommender.load(folder, verify=False, threads=threads, users=None) as new,
        Recommender.load(find(root, before), verify=False, threads=threads, users=None) as old,
    ):
        known = np.flatnonzero(dataset.events["split"].to_numpy() < part)
        held = held_out(dataset, config.evaluation, dataset.select(part), known)
        catalogue = joint_catalogue(dataset, [new.bundle.item_ids, old.bundle.item_ids])
        at = config.train.stopping.at
        lists = (recommended_rows(one, dataset, held, catalogue, at)[0] for one in (new, old))
        found = (per_request(held.relevant.contains(rows), held.relevant.lengths, (at,)) for rows in lists)
        mine, theirs = (PerRequestMetrics(held.user, values) for values in found)
    compared = compare(mine, theirs, config.evaluation.intervals, config.seed)[metric]
    activated = compared.verdict != "lower"
    if activated:
        activate(root, folder.name, before)
    return GateReport(
        version=folder.name,
        live=before,
        activated=activated,
        metric=metric,
        part="test" if part == TEST else "valid",
        requests=len(held),
        new=estimate(mine, config.evaluation.intervals, config.seed)[metric],
        old=estimate(theirs, config.evaluation.intervals, config.seed)[metric],
        difference=compared.difference,
    )
