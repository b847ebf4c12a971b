"""Compare incremental training of a bundle on new data with training from scratch.

    python scripts/benchmark_growth.py examples/ml-100k.toml --data prepared --docs docs/benchmarks.md

The folder contains the tables of the configuration, as Parquet files with times. The new part is the last interactions of
each user (`--share` of them are old) and all of every twentieth user; users and items that occur only in it are not in the
old tables. A bundle is trained on the old part. Then training continues with old and new interactions, a model is trained
from scratch on both, and training continues with the new ones only. Metrics are those of the validation part, the second last
interaction of each user; the last one is not used. `--docs` also writes them to a section of a Markdown file.
"""

import argparse
import platform
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from report_sections import replace_section

from recall.config import LastSplit, RunConfig, load_config
from recall.data.dataset import load_dataset
from recall.errors import ConfigError, RecallError
from recall.features.encoder import FeatureEncoder
from recall.pipeline import line
from recall.publish.export import export
from recall.training.incremental import Retrained, WarmStartRun, prepare_warm_start, retrain
from recall.training.loop import SweepReport
from recall.training.train import TrainResult, train

NEW_USERS = 20
"""All interactions of one user in this many are new."""


@dataclass(frozen=True, slots=True)
class Result:
    """Results of the runs.

    Incremental training with both parts, with the new part only, and a run from scratch.
    """

    both: tuple[WarmStartRun, TrainResult]
    retrained: Retrained
    alone: tuple[WarmStartRun, TrainResult]


def main() -> int:
    """Run from the command line; return the exit code."""
    arguments = _arguments()
    try:
        config = _config(arguments)
        with tempfile.TemporaryDirectory(prefix="benchmark-growth-") as scratch:
            result = run(config, arguments.data, arguments.share, Path(scratch))
    except RecallError as error:
        print(f"benchmark_growth: {error}", file=sys.stderr)
        return error.exit_code
    lines = list(_section(config, result, arguments))
    print("\n".join(lines))
    if arguments.docs:
        replace_section(arguments.docs, f"growth of {config.name}", "\n".join(lines))
    return 0


def run(config: RunConfig, data: Path, share: float, scratch: Path) -> Result:
    """Split the tables, train on the old part, and continue with the new one."""
    old, new, root = (scratch / name for name in ("old", "new", "bundles"))
    cut(config, data, share, old, new)
    dataset = load_dataset(config, old)
    encoder = FeatureEncoder.fit(dataset)
    trained = train(config, dataset, encoder, _say)
    export(trained.model, trained.encoder, dataset, config, root, popularity=trained.popularity)
    both = prepare_warm_start(config, root, new, old, root)
    went_on = train(config, both.dataset, both.encoder, _say, start=both.start)
    retrained = retrain(config, both, went_on, _say)
    alone = prepare_warm_start(config, root, new, None, root)
    return Result((both, went_on), retrained, (alone, train(config, alone.dataset, alone.encoder, _say, start=alone.start)))


def cut(config: RunConfig, data: Path, share: float, old: Path, new: Path) -> None:
    """Split the tables of a configuration into old and new data."""
    columns = config.data
    interactions = pl.read_parquet(data / columns.interactions).sort(columns.time or "", maintain_order=True)
    place = pl.int_range(pl.len()).over(columns.user_id) / pl.len().over(columns.user_id)
    late = (place >= share) | (pl.col(columns.user_id).rank("dense") % NEW_USERS == 0)
    parts = [interactions.filter(~late), interactions.filter(late)]
    for folder, part in zip((old, new), parts, strict=True):
        folder.mkdir()
        part.write_parquet(folder / columns.interactions)
    for name, key in ((columns.users, columns.user_id), (columns.items, columns.item_id)):
        if name is not None:
            table = pl.read_parquet(data / name)
            known = pl.col(key).is_in(parts[0][key].unique().implode())
            table.filter(known).write_parquet(old / name)
            table.filter(~known).write_parquet(new / name)


def _say(report: SweepReport) -> None:
    print(line(report), file=sys.stderr)


def _section(config: RunConfig, result: Result, arguments: argparse.Namespace) -> Iterator[str]:
    metrics = [f"{name}@{config.train.stopping.at}" for name in ("recall", "ndcg")]
    both, went_on = result.both
    alone, by_itself = result.alone
    yield f"### {config.name}: continued training with new data\n"
    yield f"    {_command(arguments)}\n"
    yield f"{len(both.dataset.training):,} interactions train, {len(alone.dataset.training):,} of them new; new values: " + (
        ", ".join(f"{count:,} of {name}" for name, count in both.values.items() if count) + "."
    )
    yield f"{platform.machine()}, {torch.get_num_threads()} threads. Brackets hold 95 % intervals over users.\n"
    yield f"| | {' | '.join(metrics)} | sweeps | training |"
    yield "|---" * (len(metrics) + 3) + "|"
    yield _row("the original bundle", both.before, metrics)
    yield _row("continued with old and new data", went_on.metrics, metrics, went_on)
    yield _row("trained from scratch on both", result.retrained.trained.metrics, metrics, result.retrained.trained)
    gap = {name: result.retrained.gap[name].difference for name in metrics}
    yield "| gap | " + " | ".join(f"{one.value:+.4f} [{one.low:+.4f}, {one.high:+.4f}]" for one in gap.values()) + " | | |"
    yield _row("continued with new data only", by_itself.metrics, metrics, by_itself)


def _row(name: str, figures: Mapping[str, float], metrics: list[str], run: TrainResult | None = None) -> str:
    spent = "| |" if run is None else f"{run.best_sweep} of {run.sweeps} | {run.seconds:.1f} s |"
    return f"| {name} | " + " | ".join(f"{figures[metric]:.4f}" for metric in metrics) + f" | {spent}"


def _config(arguments: argparse.Namespace) -> RunConfig:
    config = load_config(arguments.config, arguments.set)
    if config.data.time is None:
        raise ConfigError("without times there are no old and new data", where="data.time")
    if config.evaluation.intervals == 0:
        raise ConfigError("the difference needs an interval", where="evaluation.intervals", hint="Give at least 1")
    data = config.data.model_copy(update={"split": LastSplit(by="last", test=1, valid=1), "carve": 0.0})
    return config.model_copy(update={"data": data})


def _command(arguments: argparse.Namespace) -> str:
    words = ["python", "scripts/benchmark_growth.py", str(arguments.config), "--data", "DATA"]
    words += ["--share", str(arguments.share)] if arguments.share != _SHARE else []
    return shlex.join([*words, *(word for value in arguments.set for word in ("--set", value))])


_SHARE = 0.85


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="TOML file, such as examples/ml-100k.toml")
    parser.add_argument("--data", type=Path, required=True, help="folder of its tables")
    parser.add_argument("--share", type=float, default=_SHARE, help=f"of each user's interactions that are old ({_SHARE})")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    parser.add_argument("--docs", type=Path, help="Markdown file with the section to replace")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
