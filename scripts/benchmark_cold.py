"""Evaluate a configuration on new users and items, held out of training.

    python scripts/benchmark_cold.py examples/toys.toml --data ../shared/data
    python scripts/benchmark_cold.py shop/recall.toml --data shop --check
    python scripts/benchmark_cold.py examples/toys.toml --data ../shared/data --only known --known old/bundles --check

For each hold-out the configuration is trained again with `data.split` by "users" or by "items" (`--share` of them tests,
none is for validation, so that all configured sweeps run), published, and evaluated like `recall evaluate`. The
acceptance table has a row for each criterion:

- unknown users (an id, and nothing else): NDCG is not below that of popularity, by the interval of the paired difference;
- users known by features, and users known by a history: NDCG is above that of popularity, by the same interval;
- new items, if items have features: recall@20 among all n items is above that of the content baseline, by the interval of
  the paired difference, and at least 0.8 of recall@round(20 m / n) among the m new items.

`--known` names a folder of bundles that another version of the program has trained on the configuration's own split. The
configuration is trained on that split too, and NDCG of known users must not be below that of the other bundle.
`--seeds 3` repeats all with the next seeds, and so with other hold-outs, and compares the means, which have narrower intervals.
`--check` exits with 1 when a criterion is missed.

`--leak` also trains on the held-out items, masks their ids on the same requests, as the simulated cold start of `recall
evaluate` does, and prints how much more that reaches than the model that was not trained on them.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from trained import Entrant, bracketed, data_folder, publish

from recall.config import RunConfig, load_config
from recall.data.dataset import load_dataset
from recall.data.split import TEST, TRAIN, VALID
from recall.errors import RecallError
from recall.evaluation.bootstrap import Comparison, Estimate
from recall.evaluation.cold_start import evaluate_cold_start
from recall.evaluation.evaluate import EvaluationReport, evaluate
from recall.evaluation.offline import OfflineReplay
from recall.evaluation.protocol import held_out
from recall.evaluation.report import render
from recall.features.encoder import FeatureEncoder
from recall.publish.export import export
from recall.serving.recommender import Recommender
from recall.training.train import train

_AT = 20  # list length of the criteria
_RATIO = 0.8  # required ratio of recall among all items to recall among the new items
_PARTS = ("users", "items", "known")


class Criterion(BaseModel):
    """One line of the acceptance table."""

    name: str
    figure: Estimate
    baseline: Estimate
    difference: Estimate | None
    """Paired difference from the baseline; None for a ratio."""
    ratio: Estimate | None
    rule: str
    met: bool


class Result(BaseModel):
    """All results of one run."""

    name: str
    seed: int
    share: float
    criteria: list[Criterion]
    reports: dict[str, EvaluationReport]
    """By "users", "items" and "known"."""


def main() -> int:
    """Run from the command line; return the exit code."""
    arguments = _arguments()
    results: list[Result] = []
    try:
        for seed in range(arguments.seed, arguments.seed + arguments.seeds):
            results.append(run(arguments, seed))
            _show(results[-1].criteria, f"{results[-1].name}: {arguments.share:.0%} held out, seed {seed}")
    except RecallError as error:
        print(f"benchmark_cold: {error}", file=sys.stderr)
        return error.exit_code
    criteria = means([result.criteria for result in results])
    if len(results) > 1:
        _show(criteria, f"{results[0].name}: {arguments.share:.0%} held out, means of {len(results)} seeds")
    print("Brackets hold 95 % intervals of paired differences, or of the ratio, by bootstrap over users.")
    if arguments.out:
        arguments.out.write_text(f"[{','.join(result.model_dump_json(indent=2) for result in results)}]\n")
    return 1 if arguments.check and not all(one.met for one in criteria) else 0


def run(arguments: argparse.Namespace, seed: int) -> Result:
    """Train and evaluate a configuration on each requested hold-out."""
    evaluation = ["evaluation.at=[10, 20]", "evaluation.dial=[]"]
    config = load_config(arguments.config, [f"seed={seed}", *evaluation, *arguments.set])
    wanted = arguments.only or ["users", "items", *(["known"] if arguments.known else [])]
    reports: dict[str, EvaluationReport] = {}
    with tempfile.TemporaryDirectory(prefix="benchmark-cold-") as scratch:
        data = data_folder(config, arguments.data, Path(scratch))
        for part in wanted:
            if part == "items" and not _has_item_features(config):
                print("items have no features: new items are not evaluated", file=sys.stderr)
                continue
            split = {"data.split": f'{{by="{part}", test={arguments.share}, valid=0}}'} if part != "known" else {}
            settings = [*arguments.set, *(f"{key}={value}" for key, value in split.items())]
            one = load_config(arguments.config, [f"seed={seed}", *evaluation, *settings])
            reports[part] = _judged(one, data, Path(scratch) / part, arguments)
            if part == "items" and arguments.leak:
                print(_leak(one, data, Path(scratch) / "met", reports[part]))
    return Result(
        name=config.name,
        seed=config.seed,
        share=arguments.share,
        criteria=[one for report in reports.values() for one in criteria(report)],
        reports=reports,
    )


def criteria(report: EvaluationReport) -> Iterator[Criterion]:
    """Yield the rows of the acceptance table for a report."""
    users, items = report.held_out_users, report.held_out_items
    ndcg, recall = f"ndcg@{_AT}", f"recall@{_AT}"
    if users is not None:
        for name, way in (("unknown", users.unknown), ("by features", users.features), ("by history", users.history)):
            if way is not None:
                rule = "not below popularity" if name == "unknown" else "above popularity"
                yield _compared(f"users, {name}: {ndcg}", way.metrics[ndcg], users.popularity[ndcg], way.comparison[ndcg], rule)
    if items is not None:
        if items.content is not None:
            beside = items.content
            yield _compared(
                f"new items: {recall} of n = {items.items:,}",
                items.model[recall],
                beside.metrics[recall],
                beside.comparison[recall],
                "above content",
            )
        yield Criterion(
            name=f"new items: beside recall@{items.k_new} of m = {items.new:,}",
            figure=items.among_all,
            baseline=items.among_new,
            difference=None,
            ratio=items.ratio,
            rule=f"ratio at least {_RATIO}",
            met=items.ratio is not None and items.ratio.value >= _RATIO,
        )
    for rival in report.rivals:
        yield _compared(
            f"known users: {ndcg}",
            report.model.metrics[ndcg],
            rival.model.metrics[ndcg],
            rival.comparison[ndcg],
            f"not below {rival.bundle}",
        )


def means(runs: Sequence[Sequence[Criterion]]) -> list[Criterion]:
    """Average the lines of several seeds, which have independent hold-outs.

    Args:
        runs: the criteria of each seed, the same ones.
    """
    if len(runs) == 1:
        return list(runs[0])
    found = []
    for same in zip(*runs, strict=True):
        differences = [one.difference for one in same if one.difference is not None]
        ratios = [one.ratio for one in same if one.ratio is not None]
        difference = _mean(differences) if len(differences) == len(same) else None
        ratio = _mean(ratios) if len(ratios) == len(same) else None
        if difference is not None:
            bound = difference.low if same[0].rule.startswith("above") else difference.high
            met = bound is not None and (bound > 0 if same[0].rule.startswith("above") else bound >= 0)
        else:
            met = ratio is not None and ratio.value >= _RATIO
        found.append(
            Criterion(
                name=same[0].name.partition(" of n")[0].partition(" beside")[0],
                figure=_mean([one.figure for one in same]),
                baseline=_mean([one.baseline for one in same]),
                difference=difference,
                ratio=ratio,
                rule=same[0].rule,
                met=met,
            )
        )
    return found


def _mean(estimates: Sequence[Estimate]) -> Estimate:
    """Mean of independent estimates, with a normal interval."""
    value = sum(one.value for one in estimates) / len(estimates)
    halves = [(one.high - one.low) / 2 for one in estimates if one.high is not None and one.low is not None]
    if len(halves) < len(estimates):
        return Estimate(value=value)
    half = sum(one**2 for one in halves) ** 0.5 / len(estimates)
    return Estimate(value=value, low=value - half, high=value + half)


def _compared(name: str, figure: Estimate, baseline: Estimate, comparison: Comparison, rule: str) -> Criterion:
    met = comparison.verdict == "higher" if rule.startswith("above") else comparison.verdict != "lower"
    return Criterion(
        name=name, figure=figure, baseline=baseline, difference=comparison.difference, ratio=None, rule=rule, met=met
    )


def _has_item_features(config: RunConfig) -> bool:
    schema = config.schema_
    return any(
        field.side == "item" and field.kind != "cross" and schema.column(name) != schema.item_id
        for name, field in schema.fields.items()
    )


def _judged(config: RunConfig, data: Path, root: Path, arguments: argparse.Namespace) -> EvaluationReport:
    publish(Entrant(root.name, config), data, root)
    dataset = load_dataset(config, data)
    known = [arguments.known] if root.name == "known" and arguments.known else []
    with ExitStack() as opened:
        recommenders = [
            opened.enter_context(closing(Recommender.load(path, threads=os.cpu_count() or 1))) for path in (root, *known)
        ]
        split = VALID if root.name == "known" and arguments.validate else TEST
        report = evaluate(recommenders[0], dataset, config, split, against=recommenders[1:])
    if arguments.verbose:
        Console(width=128, stderr=True).print(render(report))
    return report


def _leak(config: RunConfig, data: Path, root: Path, report: EvaluationReport) -> str:
    """Compare held-out items with the same items trained on and masked."""
    dataset = load_dataset(config, data)
    parts = np.minimum(dataset.events["split"].to_numpy(), TRAIN)
    met = replace(dataset, events=dataset.events.with_columns(split=pl.Series(parts)), hold_out="")
    encoder = FeatureEncoder.fit(met)
    trained = train(config, met, encoder, lambda _: None)
    export(trained.model, trained.encoder, met, config, root, popularity=trained.popularity)
    held = held_out(dataset, config.evaluation, dataset.select(TEST), dataset.training)
    held = held.take(held.drawn(config.evaluation.sample, config.seed))
    with closing(Recommender.load(root, threads=os.cpu_count() or 1)) as recommender:
        replay = OfflineReplay.of(recommender, dataset, held)
        whole = replay.metrics_of(replay.lists(_AT), sorted(config.evaluation.at))
        simulated = evaluate_cold_start(replay, recommender.bundle, whole, config.evaluation, config.seed).new_items
    if simulated is None or report.held_out_items is None:
        return "no item field reads the id: nothing is masked"
    figure, real = simulated.metrics[f"recall@{_AT}"].value, report.held_out_items.among_all.value
    return f"new items: recall@{_AT} {figure:.4f} simulated, {real:.4f} held out: {1 - real / figure:.0%} of the former is leak"


def _show(criteria: Sequence[Criterion], title: str) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("criterion")
    for name in ("figure", "baseline", "difference or ratio"):
        table.add_column(name, justify="right")
    for name in ("rule", "met"):
        table.add_column(name)
    for one in criteria:
        beside = one.ratio if one.difference is None else one.difference
        table.add_row(
            one.name,
            f"{one.figure.value:.4f}",
            f"{one.baseline.value:.4f}",
            "none" if beside is None else bracketed(beside, "" if one.difference is None else "+"),
            one.rule,
            "yes" if one.met else "NO",
        )
    Console(width=140).print(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="TOML file, such as examples/toys.toml")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RECALL_DATA", "../shared/data")), help="data folder")
    parser.add_argument("--share", type=float, default=0.1, help="share of the users, or of the items, to hold out (0.1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the run and of the hold-out (default 0)")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds from --seed on, each with its hold-out (1)")
    parser.add_argument("--only", action="append", choices=_PARTS, help="judge this alone; may be repeated")
    parser.add_argument("--known", type=Path, metavar="BUNDLES", help="folder of bundles to compare known users with")
    parser.add_argument("--validate", action="store_true", help="evaluate known users on the validation part")
    parser.add_argument("--leak", action="store_true", help="also measure what a simulation with masked ids overstates")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    parser.add_argument("--out", type=Path, help="also write the result to this JSON file")
    parser.add_argument("--verbose", action="store_true", help="also print each evaluation in full")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a criterion fails")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
