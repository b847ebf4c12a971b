"""Train and evaluate one configuration, exactly as it would be served, and print what it came to.

    python scripts/benchmark_quality.py examples/frappe.toml --data ../shared/data
    python scripts/benchmark_quality.py examples/ml-100k.toml --data ../shared/data/ml-100k --out result.json

The data folder is the one that holds the tables, or a folder above it that holds one named as the configuration or
its first words: `frappe`, or `ml-1m` for `ml-1m-history`. GroupLens' own files are prepared first, in a temporary
folder. The model is trained on the training part, exported with proof, and the published bundle answers every test
request; nothing is sampled. `--validate` judges on the validation part instead, for tuning.
"""

import argparse
import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch
from prepare_movielens import read_movielens, write_tables
from pydantic import BaseModel
from rich.console import Console

from recall.config import RunConfig, load_config
from recall.data.dataset import load_dataset
from recall.data.split import TEST, VALID
from recall.errors import DataError, RecallError
from recall.evaluation.evaluate import EvaluationReport, evaluate
from recall.evaluation.report import render
from recall.export import export
from recall.features.encoder import FeatureEncoder
from recall.recommender import Recommender
from recall.training.loop import SweepReport
from recall.training.train import train


def main() -> int:
    """Run from the command line; returns the exit code."""
    arguments = _arguments()
    try:
        config = load_config(arguments.config, [f"seed={arguments.seed}", *arguments.set])
        with tempfile.TemporaryDirectory(prefix="benchmark-quality-") as scratch:
            result = run(config, _data_folder(config, arguments.data, Path(scratch)), Path(scratch), arguments.validate)
    except RecallError as error:
        print(f"benchmark_quality: {error}", file=sys.stderr)
        return error.exit_code
    _show(result)
    if arguments.out:
        arguments.out.write_text(result.model_dump_json(indent=2) + "\n")
    return 0


class Result(BaseModel):
    """Everything that one run came to."""

    name: str
    split: str
    k: int
    seed: int
    sweeps: int
    report: EvaluationReport
    seconds: dict[str, float]
    largest_error: float
    peak_memory_mb: int
    machine: str
    torch: str


def run(config: RunConfig, data: Path, scratch: Path, validate: bool) -> Result:
    """Train, export, load and evaluate, as a user would."""
    started = time.monotonic()
    dataset = load_dataset(config, data)
    encoder = FeatureEncoder.fit(dataset)
    loaded = time.monotonic() - started
    trained = train(config, dataset, encoder, _progress)
    exported = export(trained.model, encoder, dataset, config, scratch / "bundles")
    recommender = Recommender.load(exported.folder, threads=os.cpu_count() or 1)
    started = time.monotonic()
    report = evaluate(recommender, dataset, config, VALID if validate else TEST)
    evaluated = time.monotonic() - started
    recommender.close()
    return Result(
        name=config.name,
        split=config.data.split.by,
        k=config.model.k,
        seed=config.seed,
        sweeps=trained.sweeps,
        report=report,
        seconds={
            "load and encode": loaded,
            "train": trained.seconds,
            "export": sum(exported.seconds.values()),
            "evaluate": evaluated,
        },
        largest_error=exported.manifest.parity.largest_error,
        peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        machine=f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        torch=torch.__version__,
    )


def _data_folder(config: RunConfig, folder: Path, scratch: Path) -> Path:
    """The folder that holds the configured tables; GroupLens' own files are prepared into `scratch`."""
    words = config.name.split("-")
    candidates = [folder, *(folder / "-".join(words[:count]) for count in range(len(words), 0, -1))]
    for candidate in candidates:
        if (candidate / config.data.interactions).is_file():
            return candidate
        if any((candidate / name).is_file() for name in ("u.data", "ratings.dat", "ratings.csv")):
            write_tables(read_movielens(candidate), scratch / "prepared")
            return scratch / "prepared"
    raise DataError(
        f"no {config.data.interactions!r} here or in a folder named as the configuration",
        where=str(folder),
        mend="Give --data the folder that holds the tables",
    )


def _progress(report: SweepReport) -> None:
    metrics = "  ".join(f"{name} {value:.4f}" for name, value in report.metrics.items())
    line = f"sweep {report.sweep}/{report.sweeps}  loss {report.loss:.4f}  {metrics}{' *' if report.best else ''}"
    print(f"{line}  {report.seconds:.1f} s, {report.remaining:.0f} s left", file=sys.stderr, flush=True)


def _show(result: Result) -> None:
    """The evaluation as a table, then what it cost, a figure a line."""
    report = result.report
    run_of = f"k {result.k}, seed {result.seed}, {result.sweeps} sweeps"
    print(f"{result.name}: split by {result.split}, judged on {report.part}, {run_of}")
    Console(width=120).print(render(report))
    for stage, seconds in result.seconds.items():
        print(f"{stage:16} {seconds:8.1f} s")
    print(f"{'peak memory':16} {result.peak_memory_mb:8,} MB")
    print(f"{'largest error':16} {result.largest_error:8.1e} of the exported scores")
    print(f"machine: {result.machine}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="TOML file, such as examples/frappe.toml")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RECALL_DATA", "../shared/data")), help="data folder")
    parser.add_argument("--seed", type=int, default=0, help="seed of the run (default 0)")
    parser.add_argument("--out", type=Path, help="also write the result to this JSON file")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting of the configuration"
    )
    parser.add_argument("--validate", action="store_true", help="judge on the validation part, for tuning")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
