"""`recall tune` and `recall tune-index`: better settings, or a faster index."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recall.cli import output
from recall.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

    from recall.index.record import IndexRecord
    from recall.training.tune.study import TrialReport


def tune(
    config: Annotated[Path, typer.Argument(help="Configuration (TOML) to start from.")],
    minutes: Annotated[float, typer.Option(min=0.01, help="How long to search.")],
    data: output.Data = None,
    out: Annotated[
        Path | None, typer.Option(help="File for the best settings; default: NAME.tuned.toml beside the configuration.")
    ] = None,
    objective: Annotated[
        list[str] | None, typer.Option(help="Objective to try, repeatable; default: square and softmax.")
    ] = None,
    most_k: Annotated[
        int | None, typer.Option("--most-k", min=1, max=1024, help="Largest k to try; default: the configured k, or 192.")
    ] = None,
    trial_minutes: Annotated[
        float | None, typer.Option("--trial-minutes", min=0.001, help="Time limit of one trial; default: a sixth of --minutes.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting during the search.")
    ] = None,
    as_json: output.Json = False,
) -> None:
    """Search for better settings on the validation part.

    The test part is not used. Each trial is also evaluated with unknown user ids; a trial that is then significantly worse
    than popularity is chosen only if all trials are.

    Finished trials are stored beside the result in NAME.tuned.journal. The same command continues an interrupted search, and
    several processes can share a search.

    Example: recall tune shop/recall.toml --minutes 20
    """
    from recall.config import load_config

    target = out if out is not None else config.with_suffix(".tuned.toml")
    output.require_writable(target)
    loaded = load_config(config, settings or ())
    from recall._progress import terminable
    from recall.training.tune.space import OBJECTIVES
    from recall.training.tune.study import tune, write_config
    from recall.training.tune.trials import SearchLimits

    chosen = tuple(one for one in OBJECTIVES if one in (objective or ("square", "softmax")))
    for name in objective or []:
        if name not in OBJECTIVES:
            raise ConfigError(f"unknown objective {name!r}", where="--objective", hint=did_you_mean(name, OBJECTIVES))
    configured = loaded.model.k if loaded.model.kind == "lr" or "k" in loaded.model.model_fields_set else None
    limits = SearchLimits(60 * minutes, 60 * (trial_minutes or minutes / 6), most_k or configured or 192, chosen)
    journal = target.with_suffix(".journal")
    with terminable():  # SIGTERM, like SIGINT, ends the search with the best trial so far
        found = tune(loaded, data if data is not None else config.parent, journal, limits, _show)
    write_config(config, found, target, minutes, settings or ())
    unknown = "" if found.unknown is None else f", {_unknown(found.unknown, found.margin)}"
    before = f"{found.configured:.4f}" if found.configured is not None else "failed"
    if loaded.train.objective == "auto":
        before = "auto, a race without fixed settings"
    output.result(
        as_json,
        {"file": str(target), **{name: getattr(found, name) for name in found.__slots__}},
        {
            "written": target,
            "best": f"{found.metric} {found.figure:.4f} on {found.requests:,} validation requests, "
            f"after {found.trials} trials, {found.seconds / 60:.1f} minutes{unknown}",
            "configured": before,
            "to continue": f"run the same command again; trials are kept in {journal}",
        },
    )


def _show(report: "TrialReport") -> None:
    named = f"[{report.recipe}] " if report.recipe else ""
    shown = named + (" ".join(_settings(report.values)) or "as configured")
    if report.figure is None:
        output.note(f"trial {report.number:>3}  failed after {report.seconds:.0f} s: {report.fault}  {shown}")
        return
    unknown = "" if report.unknown is None else f"{_unknown(report.unknown, report.margin)}  "
    mark = " pruned" if report.pruned else " *" if report.best else "  "
    output.note(f"trial {report.number:>3}  {report.figure:.4f}{mark} {report.seconds:6.1f} s  {unknown}{shown}")


def _settings(values: "Mapping[str, JsonValue]", prefix: str = "") -> "Iterator[str]":
    """Yield every setting of a trial as section.key=value, a left-out field as -name."""
    from recall.config.docs import toml

    for key, value in values.items():
        if isinstance(value, dict):
            yield from _settings(value, f"{prefix}{key}.")
        elif value is None and prefix == "fields.":
            yield f"-{key}"
        elif value is not None:
            yield f"{prefix}{key}={toml(float(f'{value:.4g}') if isinstance(value, float) else value)}"


def _unknown(figure: float, margin: float | None) -> str:
    return f"unknown users {figure:.4f}{', worse than popularity' if margin is not None and margin < 0 else ''}"


def tune_index(
    bundle: output.Bundle,
    target: Annotated[
        float | None, typer.Option(help="Target recall against the exact list; default: that of the bundle.")
    ] = None,
    n: Annotated[int | None, typer.Option("--n", "-n", help="Length of the lists; default: that of the bundle.")] = None,
    confidence: Annotated[
        float | None, typer.Option(help="Confidence level of the lower bound on recall; default: that of the bundle.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Kind of index, as in `[index] kind`; default: the fastest.")] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Time limit in seconds after which no further candidate is started.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to publish to; default: BUNDLE.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the choice without publishing it.")] = False,
    as_json: output.Json = False,
) -> None:
    """Publish a bundle with the fastest index that verifiably reaches the target."""
    from recall.publish.derived import reindex

    given = {"target": target, "n": n, "confidence": confidence, "kind": kind, "seconds": seconds}
    changes = {name: value for name, value in given.items() if value is not None}
    root = None if dry_run else out if out is not None else bundle
    with output.stage("build, tune, verify"):
        report = reindex(
            bundle, root, changes, lambda trial: output.note(f"  {trial.name}" + (f": {trial.note}" if trial.note else ""))
        )
    if report.unopened:
        output.note(f"the index of the source could not be opened: {report.unopened}")
    if as_json:
        index = report.index.model_dump(mode="json")
        output.show_json({"folder": report.folder, "version": report.version, "index": index})
        return
    _show_choice(report.index)
    output.show(
        {
            "before": described(report.before),
            "now" if report.folder is not None else "would be": described(report.index),
            **({"published": report.folder} if report.folder is not None else {}),
        }
    )


def _show_choice(index: "IndexRecord") -> None:
    head = ("candidate", "effort", "recall", "microseconds", "MB", "built in s", "")
    rows = []
    for one in index.candidates:
        point = next((point for point in one.curve if point.effort == one.tuned), one.curve[-1] if one.curve else None)
        measured = (f"{point.effort:g}", f"{point.recall:.4f}", f"{point.microseconds:,.0f}") if point else ("", "", "")
        rows.append((one.name, *measured, f"{one.bytes / 1e6:,.1f}", f"{one.seconds:.1f}", one.note))
    if rows:
        output.show_table(head, rows)
        typer.echo()


def described(index: "IndexRecord") -> str:
    """Describe an index: kind, recall, and the certificate behind it."""
    name = index.kind if index.kind == index.engine else f"{index.kind} by {index.engine}"
    shown = f"{name}, finds {index.recall:.2%} of the exact top {index.n}"
    proof = index.certificate
    if proof is not None and proof.queries:
        shown += f"; at least {proof.lower:.2%} with {proof.confidence:.0%} confidence, on {proof.queries:,} users"
        shown += "" if proof.met else f", which misses {proof.target:.2%}"
    return shown + (f" ({index.why})" if index.why else "")
