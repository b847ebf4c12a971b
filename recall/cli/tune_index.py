"""`recall tune-index`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recall.cli import output

if TYPE_CHECKING:
    from recall.bundle.manifest import IndexRecord


def tune_index(
    bundle: Annotated[Path, typer.Argument(help="A folder of published bundles, or one bundle.")],
    target: Annotated[
        float | None, typer.Option(help="Share of the exact list to find; as the bundle has it when left out.")
    ] = None,
    n: Annotated[int | None, typer.Option("--n", "-n", help="Length of the lists.")] = None,
    confidence: Annotated[float | None, typer.Option(help="Probability with which the certificate holds.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="A kind of index, in place of the fastest of all: see `[index] kind`.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="After this time no other candidate is begun.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to publish to; BUNDLE itself when left out.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be chosen, and publish nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Publish a bundle with the fastest index that is shown to find enough of the exact lists of its users."""
    from recall.publish.reindex import reindex

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
    _show(report.index)
    output.show(
        {
            "before": described(report.before),
            "now" if report.folder is not None else "would be": described(report.index),
            **({"published": report.folder} if report.folder is not None else {}),
        }
    )


def _show(index: "IndexRecord") -> None:
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
    """What an index is, what it finds, and what that rests on."""
    name = index.kind if index.kind == index.engine else f"{index.kind} by {index.engine}"
    shown = f"{name}, finds {index.recall:.2%} of the exact top {index.n}"
    proof = index.certificate
    if proof is not None and proof.queries:
        shown += f"; at least {proof.lower:.2%} with {proof.confidence:.0%} confidence, on {proof.queries:,} users"
        shown += "" if proof.met else f", which misses {proof.target:.2%}"
    return shown + (f" ({index.why})" if index.why else "")
