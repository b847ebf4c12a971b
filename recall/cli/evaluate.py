"""`recall evaluate`."""

import os
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recall.cli import output

if TYPE_CHECKING:
    from recall.evaluation.evaluate import EvaluationReport


class Part(StrEnum):
    """A held-out part of the interactions."""

    VALID = "valid"
    TEST = "test"


def evaluate(
    config: Annotated[Path, typer.Argument(help="The TOML file of the run, for its data, split and evaluation.")],
    bundle: Annotated[Path, typer.Argument(help="A folder of published bundles, or one bundle.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the tables; default: that of the configuration.")] = None,
    part: Annotated[Part, typer.Option(help="The held-out part to evaluate on.")] = Part.TEST,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, such as evaluation.mask=none.")
    ] = None,
    ablate: Annotated[bool, typer.Option("--ablate", help="Also evaluate the model without each of its fields.")] = False,
    against: Annotated[
        list[Path] | None, typer.Option(metavar="BUNDLE", help="Another bundle to compare with, on the same requests.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the report to this file as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Evaluate a published bundle on held-out interactions, beside popularity.

    A difference is called better or worse, and a field is said to help or to hurt, only where its interval excludes 0.

    Example: recall evaluate shop/recall.toml shop/bundles
    """
    from recall.config import load_config
    from recall.data.dataset import load_dataset
    from recall.data.split import TEST, VALID
    from recall.evaluation.data_match import refuse_trained_on
    from recall.evaluation.evaluate import evaluate as evaluate_bundle
    from recall.serving.recommender import Recommender

    loaded = load_config(config, settings or ())
    threads = os.cpu_count() or 1
    with ExitStack() as opened:
        recommender = opened.enter_context(Recommender.load(bundle, threads=threads, users=None))
        with output.stage("load the tables"):
            types, folder = recommender.bundle.encoder.types, data if data is not None else config.parent
            dataset = load_dataset(loaded, folder, types)
        others = [opened.enter_context(Recommender.load(one, threads=threads, users=None)) for one in against or ()]
        with output.stage("evaluate"):
            split = TEST if part is Part.TEST else VALID
            for one in (recommender, *others):
                refuse_trained_on(
                    dataset, loaded, split, one.bundle, one.users.get, lambda changed: load_dataset(changed, folder, types)
                )
            report = evaluate_bundle(recommender, dataset, loaded, split, ablated=ablate, against=others)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    if as_json:
        output.show_json(report.model_dump())
    else:
        _show(report)


def _show(report: "EvaluationReport") -> None:
    from rich.console import Console

    from recall.evaluation.report import render

    console = Console()
    # in a pipe or file, as wide as the table needs
    (console if console.is_terminal else Console(width=120)).print(render(report))
