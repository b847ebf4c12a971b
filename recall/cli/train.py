"""`recall train`."""

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from recall._heap import return_memory_when_freed
from recall.cli import output
from recall.cli.bundle import ROUNDING
from recall.cli.tune import described

if TYPE_CHECKING:
    from pydantic import JsonValue

    from recall.bundle.manifest import Manifest
    from recall.config import RunConfig
    from recall.pipeline import Run

Activate = Annotated[
    Literal["never", "always", "if-not-worse"],
    typer.Option(
        help="Whether to make the version live; if-not-worse compares it with the live version on held-out requests first."
    ),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, such as train.sweeps=4.")
]
REJECTED = 3
"""Exit code when a version was published and not activated, because it is worse than the live one."""

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def train(
    config: output.Config,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the tables; default: the folder of the configuration. With --resume: the old tables."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to publish a new version to.")] = Path("bundles"),
    settings: Settings = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="Continue from a published bundle, with the tables in --new.")
    ] = None,
    new: Annotated[Path | None, typer.Option(metavar="DATA", help="With --resume: folder of the new tables.")] = None,
    compare_full: Annotated[
        bool, typer.Option("--compare-full", help="With --resume: also train from scratch, and report the difference.")
    ] = False,
    old_weight: Annotated[
        float,
        typer.Option(
            "--remember", min=0.0, help="With --resume and no --data: weight of an old observation relative to a new one."
        ),
    ] = 1.0,
    go_on: Annotated[bool, typer.Option("--continue", help="Continue an interrupted run with the same settings.")] = False,
    as_of: Annotated[
        int | None,
        typer.Option(
            "--as-of",
            min=0,
            metavar="SEQUENCE",
            help="The items table already contains all live changes up to this sequence number.",
        ),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Discard the checkpoint of an interrupted run with the same settings.")
    ] = False,
    race: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help='With train.objective = "auto": time for the comparison of recipes, such as 45s or 2m.'
        ),
    ] = None,
    activate: Activate = "always",
    count: Annotated[
        int,
        typer.Option("--ranks", min=1, help="Number of training processes on this machine. For several machines use torchrun."),
    ] = 1,
    waiting: Annotated[
        float,
        typer.Option(
            "--rank-timeout", min=1, help="With several ranks: seconds that a rank waits for the others before it gives up."
        ),
    ] = 120.0,
    as_json: output.Json = False,
) -> None:
    """Train a model, verify its export, and publish it.

    With train.objective = "auto", several objectives and settings (recipes) are compared on the validation part first; the
    best is then trained on the training and the validation part. With --activate if-not-worse, a version that is worse than
    the live version is published, but not activated, and the exit code is 3.

    Examples: recall train shop/recall.toml --out bundles --set model.k=32;
    recall train shop/recall.toml --resume bundles --new today --data shop --out bundles
    """
    if (resume is None) != (new is None):
        raise typer.BadParameter("--resume BUNDLE and --new DATA must be given together")
    if compare_full and resume is None:
        raise typer.BadParameter("--compare-full requires --resume BUNDLE --new DATA")
    if go_on and restart:
        raise typer.BadParameter(
            "--continue and --restart exclude each other: one continues from the checkpoint, one overwrites it"
        )
    if race is not None and resume is not None:
        raise typer.BadParameter("--race and --resume exclude each other: a bundle continues with what its race chose")
    if resume is not None and count > 1:
        raise typer.BadParameter("--ranks and --resume exclude each other: a bundle is continued by one process")
    return_memory_when_freed()  # before polars is imported
    from recall.config import load_config

    through = [] if as_of is None else [f"data.contains_changes_through={as_of}"]
    loaded = load_config(config, [*(settings or ()), *through])
    if resume is not None and new is not None:
        from recall.pipeline import grow

        finished = grow(loaded, resume, new, data, out, go_on, compare_full, old_weight, restart=restart, activation=activate)
    else:
        from recall.pipeline import assist, run
        from recall.training.process_ranks import connected, launch

        if count > 1 and "RANK" not in os.environ:
            launch(count, sys.argv[1:], out)
            return
        folder, seconds = data if data is not None else config.parent, _race_seconds(loaded, race)
        with connected(waiting) as ranks:
            if ranks.rank:
                assist(loaded, ranks)
                return
            finished = run(loaded, folder, out, go_on, restart=restart, race=seconds, activation=activate, ranks=ranks)
    _end(finished, as_json)


def retrain(
    config: output.Config,
    root: Annotated[Path, typer.Argument(help="The folder of published bundles.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the old tables, to which the new tables are added; default: train on the new tables only."
        ),
    ] = None,
    settings: Settings = None,
    *,
    new: Annotated[Path, typer.Option(metavar="DATA", help="Folder of the new tables.")],
    old_weight: Annotated[
        float, typer.Option("--remember", min=0.0, help="Without --data: weight of an old observation relative to a new one.")
    ] = 1.0,
    restart: Annotated[
        bool, typer.Option("--restart", help="Discard the checkpoint of an interrupted run instead of continuing it.")
    ] = False,
    activate: Activate = "if-not-worse",
    as_json: output.Json = False,
) -> None:
    """Continue training with new data, and activate the result unless it is worse.

    For cron jobs: continues an interrupted run, does nothing if there are no new interactions, and removes old versions
    (export.keep). The exit code is 3 if the new version is worse and was not activated, and 75 if another process retrains
    the same root.

    Example: recall retrain shop/recall.toml bundles --new today --data shop
    """
    return_memory_when_freed()  # before polars is imported
    from recall._file_system import locked
    from recall.bundle.versions import live_name, resolve
    from recall.config import load_config
    from recall.data.incremental import append, check_appendable
    from recall.pipeline import grow
    from recall.training.incremental import NothingNewError

    loaded = load_config(config, settings or ())
    resolve(root)  # a missing folder is not created
    finished, nothing = None, ""
    with locked(root / ".retrain.lock", 0.0, "another process retrains this root"):
        if data is not None:
            check_appendable(loaded.data, new, data)
        try:
            finished = grow(
                loaded, root, new, data, root, None, False, old_weight, restart=restart, activation=activate, only_new=True
            )
        except NothingNewError as error:
            nothing = error.what
        if data is not None:  # also where nothing is new: a run that was interrupted may have added some tables only
            added = append(loaded.data, new, data)
            if finished is not None or any(added.values()):
                output.note(f"added to {data}: " + ", ".join(f"{rows:,} {name}" for name, rows in added.items()))
    if finished is None:
        output.result(as_json, {"folder": None, "live": live_name(root)}, {"nothing new": nothing})
    else:
        _end(finished, as_json)


def _end(finished: "Run", as_json: bool) -> None:
    """Print a finished run; exit with 3 where it is worse than the live version."""
    output.note(*finished.exported.log_overlap.describe())
    output.result(as_json, _result(finished), dict(_lines(finished)))
    if finished.gate is not None and finished.gate.worse:
        raise typer.Exit(REJECTED)


def _result(finished: "Run") -> dict[str, object]:
    trained, manifest = finished.trained, finished.exported.manifest
    return {
        "folder": str(finished.exported.folder),
        "version": manifest.version,
        "sweeps": trained.sweeps,
        "best_sweep": trained.best_sweep,
        "items": dict(finished.dataset.offer.counts()),
        "model": manifest.model.model_dump(),
        "metrics": trained.metrics,
        "new_items": trained.new_items,
        "unknown_users": trained.unknown_users,
        "fields": [asdict(one) for one in trained.fields],
        "training_seconds": trained.seconds,
        "zero_weights": trained.zeros,
        "export_seconds": dict(finished.exported.seconds),
        "parity": manifest.parity.model_dump(),
        "index": manifest.index.model_dump(),
        "live_changes": finished.exported.log_overlap.to_json(),
        **({"gate": finished.gate.model_dump()} if finished.gate is not None else {}),
        **({"race": finished.race} if finished.race is not None else {}),
        **({"growth": manifest.metrics["growth"]} if "growth" in manifest.metrics else {}),
    }


def _lines(finished: "Run") -> Iterator[tuple[str, object]]:
    from recall.config import GradientConfig

    trained, manifest = finished.trained, finished.exported.manifest
    parity, index = manifest.parity, manifest.index
    yield "published", finished.exported.folder
    if finished.race is not None:
        from recall.training.race.decide import winner_line

        yield "recipe", winner_line(finished.race)
    yield "model", f"sweep {trained.best_sweep} of {trained.sweeps}, {trained.seconds:.1f} s"
    yield "new items", trained.new_items
    yield "unknown users", trained.unknown_users
    if trained.fields:
        yield "fields", "\n".join(map(str, trained.fields))
    yield from _growth_lines(manifest)
    kept = manifest.model.kept
    if isinstance(finished.config.train, GradientConfig) and finished.config.train.first_order is not None:
        shares = ", ".join(f"{share:.1%} of the {side} features" for side, share in trained.zeros.items())
        yield "zero weights", f"{shares}; {len(kept)} arrays were stored without their zero rows"
    yield (
        "export check",
        f"served scores differ from the model by at most {parity.largest_error:.1e} "
        f"({parity.users:,} users x {parity.items:,} items, tolerance {parity.tolerance:.0e}); "
        f"the top {parity.top_k} agree for {parity.top_k_agreement:,} of {parity.users:,} users",
    )
    fold = manifest.model.fold
    if fold is not None and fold.lost >= ROUNDING:
        yield "fold", f"rank {fold.rank}: error {fold.lost:.1e} of the field weights, at most {fold.score_error:.1e} of a score"
    yield "index", described(index)
    if finished.gate is not None:
        yield from finished.gate.lines().items()


def _growth_lines(manifest: "Manifest") -> Iterator[tuple[str, object]]:
    """Yield the figures of an incremental run: bundle before, after, and full retrain."""
    from recall.evaluation.bootstrap import Estimate

    growth = manifest.metrics.get("growth")
    if not isinstance(growth, dict):
        return
    yield "continued from", f"{growth['from']}, with {growth['learnt from']}"
    for name, label, seconds in (
        ("before", "before", None),
        ("after", "after", growth["seconds"]),
        ("full", "from scratch", _part(growth, "full").get("seconds")),
    ):
        figures = _part(growth, name)
        if figures:
            shown = [f"{key} {value:.4f}" for key, value in figures.items() if key.startswith(("ndcg", "recall"))]
            yield label, ", ".join(shown) + (f", {seconds:.1f} s" if isinstance(seconds, float) else "")
    if gap := _part(growth, "gap"):
        yield (
            "difference",
            ", ".join(
                f"{key} {Estimate.model_validate(gap[key]).interval('+')}" for key in gap if key.startswith(("ndcg", "recall"))
            ),
        )


def _part(growth: "dict[str, JsonValue]", name: str) -> dict[str, Any]:
    part = growth.get(name)
    return part if isinstance(part, dict) else {}


def _race_seconds(config: "RunConfig", option: str | None) -> float | None:
    """Return the seconds that `--race` gives to a race, None where it is not given.

    Args:
        config: of the run.
        option: a duration, such as 90, 45s, 2m or 1h; None where the option is not given.

    Raises:
        BadParameter: The option must be a positive duration.
        ConfigError: The objective is not "auto".
    """
    from recall.config import AutoConfig
    from recall.errors import ConfigError

    if option is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", option.strip())
    if found is None or float(found[1]) == 0:
        raise typer.BadParameter(f"--race needs a duration such as 45s, 2m or 1h, got {option!r}")
    if not isinstance(config.train, AutoConfig):
        raise ConfigError(
            f'--race needs train.objective = "auto", got {config.train.objective!r}',
            where="--race",
            hint="Leave it out, or add --set train.objective=auto",
        )
    return float(found[1]) * _UNITS[found[2]]
