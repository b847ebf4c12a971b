"""Compare what a new user gets with a tuned configuration, on real data.

    python scripts/benchmark_defaults.py --data ../shared/data --kept ../defaults --rehearse
    python scripts/benchmark_defaults.py toys frappe --data ../shared/data --kept ../defaults
    python scripts/benchmark_defaults.py --recorded --docs docs/benchmarks.md
    python scripts/benchmark_defaults.py --ways drafted fwfm ffm --data ../shared/data --kept ../defaults --rehearse

Ways to a model of each data set, by the commands that a user would run, each in its own process:

- drafted: `recall init`, then `recall train`, whose race chooses the recipe;
- example: `recall train` with the example's file;
- tuned: `recall tune --minutes 12` from the drafted file, then `recall train`.

A fourth way, unseen, is drafted with a race without the recipes and settings that were tuned on this data set: it shows what to
expect of new data. For most sets nothing was tuned on them alone; there it equals the drafted way.

`--ways drafted fwfm ffm` compares kinds of models in their place, all from the drafted file, with a race as long for each.

Only the protocol (split, mask, and definition of a request) comes from the example's file in all three. Each result,
with seconds, CPU seconds and peak memory, is added to the file `--results` (docs/defaults.json), so that the same command
continues an interrupted run; delete a result to measure it again. `--recorded` runs nothing and shows what the file contains.

`--rehearse` is for choices: it leaves the test rows out of the tables, and a part of the others tests instead: the validation
rows, or the last row of each user, or a tenth of the rows. `--check` exits with 1 where a drafted file is below 95 %, or a
tuned one below 98 %, of the best of the three.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import tomlkit
from pydantic import BaseModel, JsonValue, TypeAdapter
from report_sections import replace_section
from rich.console import Console
from rich.table import Table
from trained import bracketed, data_folder

from recall.config import load_config
from recall.errors import RecallError
from recall.evaluation.bootstrap import Estimate
from recall.training.race.recipes import TUNED_ON

# the example of each data set, and the metric of its protocol
EXAMPLES = {
    "toys": ("toys", "ndcg@10"),
    "ml-100k": ("ml-100k", "ndcg@10"),
    "frappe": ("frappe", "ndcg@10"),
    "ml-1m": ("ml-1m-history", "ndcg@10"),
    "gowalla": ("gowalla", "ndcg@20"),
    "amazon-book-kg": ("amazon-book-kg", "ndcg@20"),
}
WAYS = ("drafted", "example", "tuned", "unseen")
KINDS = ("fwfm", "ffm")  # of models, besides the drafted FM
_SHARES = {"drafted": 0.95, "tuned": 0.98}  # of the best way, that `--check` requires
_EXAMPLES = Path(__file__).parents[1] / "examples"
_RECORD = Path(__file__).parents[1] / "docs" / "defaults.json"
_RACE = Path(__file__).with_name("training") / "race_without.py"


class Step(BaseModel):
    """Measure of one command."""

    command: str
    """Name of the command of `recall`, such as `train`."""
    seconds: float
    cpu_seconds: float
    peak_memory_mb: int


class Outcome(BaseModel):
    """One way to a model of one data set."""

    way: str
    steps: list[Step]
    metrics: dict[str, Estimate]
    popularity: dict[str, Estimate]
    chosen: str
    """Objective of the trained model, and how it was chosen."""

    def step(self, command: str) -> Step | None:
        """Return the step of a command, such as `train`."""
        return next((step for step in self.steps if step.command == command), None)


Results = dict[str, dict[str, Outcome]]
"""Outcomes by data set and way; rehearsals of a set have their own key."""
_RESULTS: TypeAdapter[Results] = TypeAdapter(Results)


def read_results(path: Path) -> Results:
    """Read the recorded outcomes; without a file, there are none."""
    return _RESULTS.validate_json(path.read_bytes()) if path.exists() else {}


def add_result(path: Path, key: str, outcome: Outcome) -> None:
    """Add an outcome to the file, in place of an older one of the same way."""
    results = read_results(path)
    results.setdefault(key, {})[outcome.way] = outcome
    staged = path.with_suffix(".part")
    staged.write_bytes(_RESULTS.dump_json(results, indent=1) + b"\n")
    staged.replace(path)


def key_of(name: str, rehearse: bool) -> str:
    """Return the key of a data set in the results."""
    return f"{name}-rehearsed" if rehearse else name


class Run:
    """The ways to a model of one data set.

    Args:
        name: of the data set.
        data: folder with the folders of all sets.
        kept: folder of tables, configurations and logs.
        results: file of the outcomes.
        rehearse: whether to leave the test rows out.
        minutes: of `recall tune`.
    """

    def __init__(self, name: str, data: Path, kept: Path, results: Path, rehearse: bool, minutes: float) -> None:
        self.name, self.minutes, self.results = name, minutes, results
        example, self.metric = EXAMPLES[name]
        self.example = tomlkit.parse((_EXAMPLES / f"{example}.toml").read_text(encoding="utf-8"))
        self.key = key_of(name, rehearse)
        self.folder = kept / self.key
        self.tables = self.folder / "tables"
        if not self.tables.is_dir():
            with tempfile.TemporaryDirectory() as scratch:
                found = data_folder(load_config(_EXAMPLES / f"{example}.toml"), data, Path(scratch))
                self._write_tables(found, rehearse)

    def _write_tables(self, found: Path, rehearse: bool) -> None:
        """Copy the tables; to rehearse, without the test rows."""
        staged = self.folder / "tables.part"
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        for table in found.glob("*.parquet"):
            shutil.copyfile(table, staged / table.name)
        if rehearse:
            path = staged / "interactions.parquet"
            _without_test(pl.read_parquet(path), self.example["data"].get("time")).write_parquet(path)
        staged.rename(self.tables)

    def outcome(self, way: str) -> Outcome:
        """Return the outcome of a way, recorded or new."""
        if way == "unseen" and self.name not in TUNED_ON:
            return self.outcome("drafted").model_copy(update={"way": way})
        if (recorded := read_results(self.results).get(self.key, {}).get(way)) is not None:
            return recorded
        root = self.folder / f"bundles-{way}"
        shutil.rmtree(root, ignore_errors=True)
        config, steps = self._config(way)
        kind = ("--set", f'model.kind="{way}"') if way in KINDS else ()
        if way == "unseen":
            steps.append(self._timed([sys.executable, _RACE, config, self.tables, root, self.name])[0])
        step, trained = self._recall("train", config, "--data", self.tables, "--out", root, "--json", *kind)
        steps.append(step)
        evaluation = json.loads(self._recall("evaluate", config, root, "--data", self.tables, "--json")[1])
        outcome = Outcome(
            way=way,
            steps=steps,
            metrics=evaluation["model"]["metrics"],
            popularity=evaluation["popularity"]["metrics"],
            chosen=_chosen(json.loads(trained), load_config(config).train.objective),
        )
        add_result(self.results, self.key, outcome)
        shutil.rmtree(root)
        return outcome

    def _config(self, way: str) -> tuple[Path, list[Step]]:
        """Return the configuration of a way, and the steps that made it."""
        if way == "example":
            return self._with_protocol(self.example, way), []
        draft = self.folder / "draft"
        shutil.rmtree(draft, ignore_errors=True)
        tables = [word for path in sorted(self.tables.glob("*.parquet")) for word in (f"--{path.stem}", path)]
        steps = [self._recall("init", draft, *tables)[0]]
        drafted = self._with_protocol(tomlkit.parse((draft / "recall.toml").read_text(encoding="utf-8")), "drafted")
        if way != "tuned":
            return drafted, steps
        tuned = self.folder / "tuned.toml"
        steps.append(self._recall("tune", drafted, "--minutes", self.minutes, "--data", self.tables, "--out", tuned)[0])
        return tuned, steps

    def _with_protocol(self, document: tomlkit.TOMLDocument, name: str) -> Path:
        """Write a configuration with the protocol of the example."""
        split = self.example["data"]["split"]
        if name != "example" and split["by"] == "column":  # the example trains on the validation rows, too
            split = {"by": "column"}
        if self.folder.name.endswith("-rehearsed") and "split" in pl.read_parquet_schema(self.tables / "interactions.parquet"):
            split = {"by": "column"}
        document["data"]["split"] = split
        document["evaluation"] = self.example["evaluation"]
        for table in self.tables.glob("*.parquet"):
            if table.stem in document["data"]:
                document["data"][table.stem] = table.name
        path = self.folder / f"{name}.toml"
        path.write_text(tomlkit.dumps(document), encoding="utf-8")
        return path

    def _recall(self, *arguments: str | Path | float) -> tuple[Step, str]:
        """Run a command of `recall`, and return what it took and what it printed."""
        return self._timed([Path(sys.executable).with_name("recall"), *arguments])

    def _timed(self, arguments: list[str | Path | float]) -> tuple[Step, str]:
        """Run a program, and return what it took and what it printed."""
        words = [str(one) for one in arguments]
        shown = " ".join([Path(words[0]).name, *words[1:]])
        name = Path(words[1]).stem
        print(f"{self.name}: {shown}", file=sys.stderr, flush=True)
        started = time.monotonic()
        printed = self.folder / f"{name}.out"
        with (self.folder / f"{name}.log").open("a", encoding="utf-8") as log, printed.open("w", encoding="utf-8") as out:
            process = subprocess.Popen(words, stdout=out, stderr=log)
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RecallError(f"{shown} ended with exit code {process.returncode}", where=str(log.name))
        step = Step(
            command=name,
            seconds=time.monotonic() - started,
            cpu_seconds=used.ru_utime + used.ru_stime,
            peak_memory_mb=used.ru_maxrss // 1024,
        )
        return step, printed.read_text(encoding="utf-8")


def _without_test(rows: pl.DataFrame, order: str | None) -> pl.DataFrame:
    """Leave the test rows out, and let a part of the others test."""
    last = None if order is None else pl.col(order) == pl.col(order).max().over("user_id")
    if "split" not in rows.columns:  # the protocol is the last row of each user
        assert last is not None
        return rows.filter(~last)
    rows = rows.filter(pl.col("split") != "test")
    if (rows["split"] == "valid").any():
        return rows.with_columns(pl.col("split").replace({"valid": "test"}))
    if last is not None:
        return rows.with_columns(pl.when(last).then(pl.lit("test")).otherwise("split").alias("split"))
    drawn = pl.Series(np.random.default_rng(0).random(len(rows)) < _TENTH)
    return rows.with_columns(pl.when(drawn).then(pl.lit("test")).otherwise("split").alias("split"))


_TENTH = 0.1


def _chosen(trained: dict[str, JsonValue], objective: str) -> str:
    """Describe the recipe that was trained."""
    race = trained.get("race")
    return str(race["winner"]) if isinstance(race, dict) else objective


def main() -> int:
    """Run from the command line; return the exit code."""
    arguments = _arguments()
    results: Results = {}
    try:
        for name in arguments.sets or EXAMPLES:
            if arguments.recorded:
                recorded = read_results(arguments.results).get(key_of(name, arguments.rehearse), {})
                if not (found := {way: recorded[way] for way in arguments.ways if way in recorded}):
                    print(f"{name}: nothing is recorded", file=sys.stderr)
                    continue
                results[name] = found
            else:
                run = Run(name, arguments.data, arguments.kept, arguments.results, arguments.rehearse, arguments.minutes)
                results[name] = {way: run.outcome(way) for way in arguments.ways}
            Console(width=200).print(_table({name: results[name]}))
    except RecallError as error:
        print(f"benchmark_defaults: {error}", file=sys.stderr)
        return error.exit_code
    if arguments.docs:
        rehearsed = arguments.rehearse
        kinds = any(way in KINDS for way in arguments.ways)
        options = (" --ways " + " ".join(arguments.ways) if kinds else "") + (" --rehearse" if rehearsed else "")
        command = f"    python scripts/benchmark_defaults.py --data DATA --kept FOLDER{options}"
        tested = "a part of the training rows; the test rows are left out" if rehearsed else "the test rows"
        ways = "with each kind of model" if kinds else "the example's file, and tuned from the draft"
        title = "### FM, FwFM and FFM" if kinds else "### What a new user gets"
        lines = [
            title,
            command,
            f"Drafted by `recall init`, {ways}; tested on {tested}. Missing rows have not been measured.",
            "\n".join(_markdown(results)),
        ]
        replace_section(arguments.docs, "kinds of models" if kinds else "defaults", "\n\n".join(lines))
    missed = [] if any(way in KINDS for way in arguments.ways) else list(_missed(results))
    print("\n".join(missed) or "met", file=sys.stderr)
    return 1 if arguments.check and missed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", choices=[[], *EXAMPLES], help="data sets; default: all")
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("RECALL_DATA", "../shared/data")), help="folder of the sets"
    )
    parser.add_argument("--kept", type=Path, help="folder for tables, configurations and logs")
    parser.add_argument("--results", type=Path, default=_RECORD, help="file of the results; default: docs/defaults.json")
    parser.add_argument("--recorded", action="store_true", help="run nothing, show the results in the file")
    parser.add_argument("--ways", nargs="+", choices=WAYS + KINDS, default=WAYS)
    parser.add_argument("--minutes", type=float, default=12.0, help="of `recall tune`")
    parser.add_argument("--rehearse", action="store_true", help="leave the test rows out, and test on others")
    parser.add_argument("--docs", type=Path, help="Markdown file to write the table to")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a share is missed")
    arguments = parser.parse_args()
    if arguments.kept is None and not arguments.recorded:
        parser.error("--kept FOLDER is needed to run anything; --recorded shows the results so far")
    return arguments


def _missed(results: Results) -> Iterator[str]:
    """Yield a line for each figure that is too far below the best of its data set."""
    for name, outcomes in results.items():
        metric = EXAMPLES[name][1]
        best = max(one.metrics[metric].value for one in outcomes.values())
        for way, share in _SHARES.items():
            if way in outcomes and (reached := outcomes[way].metrics[metric].value / best) < share:
                yield f"missed: {name}, {way}: {reached:.1%} of the best; {share:.0%} is required"


_HEAD = ("data", "metric", "popularity", "way", "figure", "of the best", "recipe", "search s", "train s", "CPU s", "MB")


def _rows(results: Results) -> Iterator[tuple[str, ...]]:
    for name, outcomes in results.items():
        metric = EXAMPLES[name][1]
        best = max(one.metrics[metric].value for one in outcomes.values())
        for way, one in outcomes.items():
            tuning, training = one.step("tune"), one.step("train")
            yield (
                name,
                metric,
                f"{one.popularity[metric].value:.4f}",
                way,
                bracketed(one.metrics[metric]),
                f"{one.metrics[metric].value / best:.1%}",
                one.chosen,
                "" if tuning is None else f"{tuning.seconds:.0f}",
                "" if training is None else f"{training.seconds:.0f}",
                f"{sum(step.cpu_seconds for step in one.steps):.0f}",
                f"{max(step.peak_memory_mb for step in one.steps):,}",
            )


def _table(results: Results) -> Table:
    table = Table(*_HEAD)
    for row in _rows(results):
        table.add_row(*row)
    return table


def _markdown(results: Results) -> Iterator[str]:
    yield f"| {' | '.join(_HEAD)} |"
    yield f"|{'---|' * len(_HEAD)}"
    yield from (f"| {' | '.join(row)} |" for row in _rows(results))


if __name__ == "__main__":
    sys.exit(main())
