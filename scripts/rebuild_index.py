"""Publish a model with a new items table.

Items are encoded again and the index is rebuilt; nothing is trained.

python scripts/rebuild_index.py bundles new_items.parquet
python scripts/rebuild_index.py bundles new_items.csv --ignore title --json report.json
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import orjson

from recall.errors import RecallError
from recall.publish.rebuild import RebuildReport, rebuild

SHOWN = 5  # number of ids shown of each kind


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Publish a model with a new items table.")
    parser.add_argument("source", type=Path, help="a bundle, or a folder of published versions, of which the live one is used")
    parser.add_argument("items", type=Path, help="all items: .parquet or .csv")
    parser.add_argument("--root", type=Path, help="folder to publish into (default: the source)")
    parser.add_argument("--ignore", action="append", default=[], metavar="COLUMN", help="column that no field reads")
    parser.add_argument("--other-data", action="store_true", help="publish even if no item of the source is in the table")
    parser.add_argument("--json", type=Path, help="also write the report here, with all ids")
    arguments = parser.parse_args()
    try:
        root = arguments.root or arguments.source
        report = rebuild(arguments.source, arguments.items, root, arguments.ignore, other_data=arguments.other_data)
    except RecallError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    show(report)
    if arguments.json is not None:
        values = asdict(report) | {"folder": str(report.folder), "manifest": report.manifest.model_dump(mode="json")}
        arguments.json.write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2))
    return 0


def show(report: RebuildReport) -> None:
    """Print what changed."""
    manifest = report.manifest
    print(f"published {report.folder}, rebuilt from version {manifest.parent}")
    for name, ids in (("added", report.added), ("removed", report.removed), ("changed", report.changed)):
        examples = ", ".join(ids[:SHOWN]) + (", ..." if len(ids) > SHOWN else "")
        print(f"{name:>9}  {len(ids):>9,}" + (f"  {examples}" if ids else ""))
    print(f"{'kept':>9}  {report.kept:>9,}")
    print(f"  overlap  {report.overlap:>9.1%}  of the lists of {report.users:,} stored users")
    print(f"    index  {manifest.index.kind}, recall@{manifest.index.n} {manifest.index.recall:.4f}")
    print(
        f"    proof  {manifest.parity.users} users x {manifest.parity.items} items, "
        f"largest relative error {manifest.parity.largest_error:.1e}"
    )


if __name__ == "__main__":
    sys.exit(main())
