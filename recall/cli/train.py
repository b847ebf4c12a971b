"""`recall train`."""

from pathlib import Path
from typing import Annotated

import typer

from recall.cli import screen


def train(
    config: Annotated[Path, typer.Argument(help="A TOML file.")],
    data: Annotated[Path | None, typer.Option(help="Folder of the tables; that of the configuration when left out.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to publish to; a new version appears beside the older ones.")] = Path(
        "bundles"
    ),
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, such as train.sweeps=4.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from an interrupted run with the same settings.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a model, prove its export, and publish it.

    Example: recall train shop/recall.toml --out bundles --set model.k=32
    """
    from recall.config import load_config

    loaded = load_config(config, settings or ())
    from recall.cli.training import run

    finished = run(loaded, data if data is not None else config.parent, out, resume)
    trained, manifest = finished.trained, finished.exported.manifest
    parity, index = manifest.parity, manifest.index
    if as_json:
        screen.show_json(
            {
                "folder": str(finished.exported.folder),
                "version": manifest.version,
                "sweeps": trained.sweeps,
                "best_sweep": trained.best_sweep,
                "metrics": trained.metrics,
                "training_seconds": trained.seconds,
                "export_seconds": dict(finished.exported.seconds),
                "parity": parity.model_dump(),
                "index": index.model_dump(),
            }
        )
        return
    screen.show(
        {
            "published": finished.exported.folder,
            "model": f"sweep {trained.best_sweep} of {trained.sweeps}, {trained.seconds:.1f} s",
            "proof": f"served scores differ from the model's by {parity.largest_error:.1e} at most "
            f"({parity.users:,} users x {parity.items:,} items, tolerance {parity.tolerance:.0e}); "
            f"top {parity.top_k} agree for {parity.top_k_agreement:,} of {parity.users:,} users",
            "index": f"{index.kind}, finds {index.recall:.2%} of the exact top {index.n}",
        }
    )
