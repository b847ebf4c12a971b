"""Train and evaluate configurations, exactly as served, on the same requests.

    python scripts/benchmark_quality.py examples/frappe.toml --data ../shared/data
    python scripts/benchmark_quality.py examples/ml-100k.toml --data ../shared/data/ml-100k --out result.json
    python scripts/benchmark_quality.py examples/frappe.toml --against 'small FFM: model.kind=ffm; model.k=8'
    python scripts/benchmark_quality.py crossed.toml --against plain.toml --docs docs/benchmarks.md
    python scripts/benchmark_quality.py examples/toys.toml --against other-checkout/bundles

The data folder contains the tables, or a subfolder named like the configuration or its first words: `frappe`, or `ml-1m` for
`ml-1m-history`. Files of GroupLens are first converted in a temporary folder. Each model is trained on the training part and
exported with the parity check, and the published bundle answers every test request over the whole catalogue. Each `--against`
names another configuration, changed settings, or a folder of published bundles, such as one trained by another version of the
program; differences have intervals over the same users. `--validate` evaluates on the validation part instead, for tuning.
`--docs` also writes the result to its section of a Markdown file.
"""

import argparse
import os
import platform
import resource
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import torch
from pydantic import BaseModel
from report_sections import replace_section
from rich.console import Console
from trained import Entrant, Trained, bracketed, data_folder, publish

from recall.config import RunConfig, load_config
from recall.data.dataset import load_dataset
from recall.data.split import TEST, VALID
from recall.errors import ConfigError, RecallError
from recall.evaluation.evaluate import EvaluationReport, evaluate
from recall.evaluation.report import render
from recall.serving.recommender import Recommender


def main() -> int:
    """Run from the command line; return the exit code."""
    arguments = _arguments()
    try:
        entrants = _entrants(arguments)
        with tempfile.TemporaryDirectory(prefix="benchmark-quality-") as scratch:
            data = data_folder(entrants[0].config, arguments.data, Path(scratch))
            result = run(entrants, data, Path(scratch), arguments.validate)
    except RecallError as error:
        print(f"benchmark_quality: {error}", file=sys.stderr)
        return error.exit_code
    _show(result)
    if arguments.out:
        arguments.out.write_text(result.model_dump_json(indent=2) + "\n")
    if arguments.docs:
        replace_section(arguments.docs, f"quality of {result.name}", "\n".join(_section(result, _command(arguments))))
    return 0


class Result(BaseModel):
    """All results of one run."""

    name: str
    split: str
    seed: int
    model: Trained
    rivals: list[Trained]
    report: EvaluationReport
    evaluation_seconds: float
    peak_memory_mb: int
    machine: str
    torch: str


def run(entrants: Sequence[Entrant], data: Path, scratch: Path, validate: bool) -> Result:
    """Train, export, load and evaluate, as a user would.

    The first is compared with each of the others.
    """
    first = entrants[0]
    trained = [publish(one, data, one.root(scratch, number)) for number, one in enumerate(entrants)]
    dataset = load_dataset(_joint([one.config for one in entrants]), data)
    with ExitStack() as opened:
        recommenders = [
            opened.enter_context(closing(Recommender.load(one.root(scratch, number), threads=os.cpu_count() or 1)))
            for number, one in enumerate(entrants)
        ]
        started = time.monotonic()
        report = evaluate(recommenders[0], dataset, first.config, VALID if validate else TEST, against=recommenders[1:])
        evaluated = time.monotonic() - started
    return Result(
        name=first.config.name,
        split=first.config.data.split.by,
        seed=first.config.seed,
        model=trained[0],
        rivals=trained[1:],
        report=report,
        evaluation_seconds=evaluated,
        peak_memory_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        machine=f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        torch=torch.__version__,
    )


def _joint(configs: Sequence[RunConfig]) -> RunConfig:
    """Return the first configuration, with the request columns of all models.

    Raises:
        ConfigError: the configurations read different data.
    """
    times = {config.data.time for config in configs} - {None}
    data = [config.data.model_copy(update={"time": None, "carve": 0.0, "half_life": None}) for config in configs]
    if len(times) > 1 or any(one != data[0] for one in data):
        raise ConfigError(
            "the configurations read different data", where="data", hint="Compare models of one table and one split"
        )
    return configs[0].model_copy(
        update={
            "data": configs[0].data.model_copy(update={"time": next(iter(times), None)}),
            "fields": {name: field for config in reversed(configs) for name, field in config.fields.items()},
        }
    )


def _entrants(arguments: argparse.Namespace) -> list[Entrant]:
    """Return the configuration, then the others.

    Overrides of the command line hold for all of them.
    """
    common = [f"seed={arguments.seed}", *arguments.set]
    entrants = [Entrant("as configured", load_config(arguments.config, common))]
    for against in arguments.against:
        if "=" not in against and Path(against).is_dir():
            entrants.append(Entrant(f"bundle {Path(against).name}", entrants[0].config, Path(against)))
        elif against.endswith(".toml"):
            entrants.append(Entrant(Path(against).stem, load_config(Path(against), common)))
        else:
            label, colon, settings = against.partition(":")
            if not colon or "=" in label:
                label, settings = against, against
            changes = [setting.strip() for setting in settings.split(";")]
            entrants.append(Entrant(label, load_config(arguments.config, [*common, *changes])))
    return entrants


def _show(result: Result) -> None:
    """Return the evaluation as tables, then the cost of each model, one line each."""
    print(f"{result.name}: split by {result.split}, evaluated on {result.report.part}, seed {result.seed}")
    for one in (result.model, *result.rivals):
        print(f"{one.bundle}: {one.label}; {_sizes(one)}")
    Console(width=128).print(render(result.report))
    for one in (result.model, *result.rivals):
        stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in one.seconds.items()) or "trained before"
        print(f"{one.bundle}: {stages}; largest error of an exported score {one.largest_error:.1e}")
    print(f"evaluate {result.evaluation_seconds:.1f} s; peak memory of the whole run {result.peak_memory_mb:,} MB")
    print(f"machine: {result.machine}")


def _sizes(one: Trained) -> str:
    sweeps = f", {one.sweeps} sweeps" if one.seconds else ""
    return f"{one.kind}, k {one.k}, vectors of {one.dim}{sweeps}"


def _command(arguments: argparse.Namespace) -> str:
    """Return the command without paths of this machine."""
    words = ["python", "scripts/benchmark_quality.py", str(arguments.config), "--data", "DATA"]
    words += [word for name in ("set", "against") for value in getattr(arguments, name) for word in (f"--{name}", value)]
    words += ["--seed", str(arguments.seed)] if arguments.seed else []
    return shlex.join([*words, *(["--validate"] if arguments.validate else [])])


def _section(result: Result, command: str) -> Iterator[str]:
    """Yield the result as Markdown.

    One column per model; the first is compared with popularity and with the others.
    """
    report = result.report
    yield f"### {result.name}\n"
    yield f"    {command}\n"
    asked = f"{report.requests:,} requests of {report.users:,} users over {report.items:,} items"
    yield f"{report.part.capitalize()} part: {asked}. Seed {result.seed}; {result.machine};"
    yield f"{result.peak_memory_mb:,} MB at most. Brackets hold 95 % intervals over users."
    yield "Differences are the first model minus the other one.\n"
    names = [name for name in report.model.metrics if name.startswith(("recall", "hit_rate", "ndcg"))]
    yield (
        "| | " + " | ".join([result.model.label, "popularity", *(f"{one.label} | difference" for one in result.rivals)]) + " |"
    )
    yield "|---" * (3 + 2 * len(result.rivals)) + "|"
    for name in names:
        cells = [bracketed(report.model.metrics[name]), bracketed(report.popularity.metrics[name])]
        for rival in report.rivals:
            difference = rival.comparison[name]
            cells += [bracketed(rival.model.metrics[name]), f"{bracketed(difference.difference, '+')} {difference.verdict}"]
        yield f"| {name} | " + " | ".join(cells) + " |"
    for title, cell in (("model", _sizes), ("training", lambda one: f"{one.seconds['train']:.1f} s" if one.seconds else "")):
        yield f"| {title} | " + " | ".join([cell(result.model), "", *(f"{cell(one)} | " for one in result.rivals)]) + " |"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="TOML file, such as examples/frappe.toml")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RECALL_DATA", "../shared/data")), help="data folder")
    parser.add_argument("--seed", type=int, default=0, help="seed of the run (default 0)")
    parser.add_argument("--out", type=Path, help="also write the result to this JSON file")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting of every configuration"
    )
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="SETTINGS",
        help="another TOML file, a folder of bundles, or settings KEY=VALUE separated by ;, with an optional name "
        "and colon in front; may be repeated",
    )
    parser.add_argument("--validate", action="store_true", help="evaluate on the validation part, for tuning")
    parser.add_argument("--docs", type=Path, help="Markdown file with the section to replace")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
