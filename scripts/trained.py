"""Train and publish a configuration, for the benchmarks of quality and cold start."""

import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from prepare_movielens import read_movielens, write_tables
from pydantic import BaseModel

from recall.bundle.manifest import Manifest
from recall.config import RunConfig
from recall.data.dataset import load_dataset
from recall.errors import DataError
from recall.evaluation.bootstrap import Estimate
from recall.features.encoder import FeatureEncoder
from recall.publish.export import export
from recall.serving.recommender import Recommender
from recall.training.loop import SweepReport
from recall.training.train import train

_WATCHED = ("ndcg", "recall", "unknown_ndcg")  # validation metrics printed after each sweep


@dataclass(frozen=True, slots=True)
class Entrant:
    """A configuration to train, or an existing bundle, and its label."""

    label: str
    config: RunConfig
    bundle: Path | None = None

    def root(self, scratch: Path, number: int) -> Path:
        """Return the folder of its bundles."""
        return scratch / f"bundles-{number}" if self.bundle is None else self.bundle


class Trained(BaseModel):
    """One model of a run."""

    label: str
    bundle: str
    kind: str
    k: int
    dim: int
    sweeps: int
    seconds: dict[str, float]
    largest_error: float


def publish(entrant: Entrant, data: Path, root: Path) -> Trained:
    """Train and publish an entrant to `root`, or describe an existing bundle."""
    config = entrant.config
    if entrant.bundle is not None:
        with closing(Recommender.load(entrant.bundle)) as recommender:
            found = recommender.bundle.manifest
        return _described(entrant.label, found, 0, {})
    print(f"{config.name}, {entrant.label}", file=sys.stderr, flush=True)
    started = time.monotonic()
    dataset = load_dataset(config, data)
    encoder = FeatureEncoder.fit(dataset)
    loaded = time.monotonic() - started
    trained = train(config, dataset, encoder, _progress)
    manifest = export(trained.model, trained.encoder, dataset, config, root, popularity=trained.popularity).manifest
    return _described(entrant.label, manifest, trained.sweeps, {"load and encode": loaded, "train": trained.seconds})


def _described(label: str, manifest: Manifest, sweeps: int, seconds: dict[str, float]) -> Trained:
    return Trained(
        label=label,
        bundle=manifest.version,
        kind=manifest.model.kind,
        k=manifest.sizes.k,
        dim=manifest.sizes.dim,
        sweeps=sweeps,
        seconds=seconds,
        largest_error=manifest.parity.largest_error,
    )


def data_folder(config: RunConfig, folder: Path, scratch: Path) -> Path:
    """Return the folder that holds the configured tables.

    Files of GroupLens are converted into `scratch`.
    """
    words = config.name.split("-")
    candidates = [folder, *(folder / "-".join(words[:count]) for count in range(len(words), 0, -1))]
    for candidate in candidates:
        if (candidate / config.data.interactions).is_file():
            return candidate
        if any((candidate / name).is_file() for name in ("u.data", "ratings.dat", "ratings.csv")):
            write_tables(read_movielens(candidate), scratch / "prepared")
            return scratch / "prepared"
    raise DataError(
        f"no {config.data.interactions!r} here or in a folder named like the configuration",
        where=str(folder),
        hint="Give --data the folder with the tables",
    )


def _progress(report: SweepReport) -> None:
    metrics = "  ".join(f"{name} {value:.4f}" for name, value in report.metrics.items() if name.startswith(_WATCHED))
    line = f"sweep {report.sweep}/{report.sweeps}  loss {report.loss:.4f}  {metrics}{' *' if report.best else ''}"
    print(f"{line}  {report.seconds:.1f} s, {report.remaining:.0f} s left", file=sys.stderr, flush=True)


def bracketed(estimate: Estimate, sign: str = "") -> str:
    """Format a metric with its interval, if it has one."""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:{sign}.4f}"
    return f"{estimate.value:{sign}.4f} [{estimate.low:{sign}.4f}, {estimate.high:{sign}.4f}]"
