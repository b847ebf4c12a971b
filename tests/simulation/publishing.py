"""Workload: several processes publish, activate and roll back versions; and the check after a crash."""

import random
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from recall.bundle import versions
from recall.bundle.activation import activate, previous
from recall.bundle.manifest import MANIFEST, Manifest
from tests.bundle.publisher import check as published_check
from tests.bundle.publisher import publish_random
from tests.simulation.power import Broken, Entry, Moment
from tests.simulation.workload import Marks

TEMPLATE = "template"
"""A bundle next to the root whose manifest is the template of all versions."""
ROOT = "root"
OPERATIONS = 8


def work(folder: Path, draw: random.Random, marks: Marks) -> None:
    """Run random publications to a root that does not exist at first."""
    marks.say(begin="publish")
    root, template = folder / "made" / ROOT, Manifest.read(folder / TEMPLATE)
    for _ in range(OPERATIONS):
        names = [version.name for version in versions.versions(root)] if root.exists() else []
        match draw.choices(["publish", "activate", "back"], [5, 2, 1])[0]:
            case "activate" if names:
                name = draw.choice(names)
                marks.carry_out(partial(_activated, root, name), do="live")
            case "back" if len(names) > 1:
                marks.carry_out(partial(_activated, root, ""), do="live")
            case _:
                keep = draw.choice((None, 2, 3))
                marks.carry_out(partial(_published, root, template, keep), do="live")


def check(folder: Path, moment: Moment) -> None:
    """Check that the last acknowledged version, or the one in flight, is live and intact, and that the root is usable."""
    root = folder / "made" / ROOT
    expected = [entry["version"] for entry in moment.done[-1:]]
    possible = expected + ([moment.next["version"]] if moment.next is not None else [])
    empty = not expected and not (root / versions.CURRENT).exists()
    live = 0 if empty else _whole(root, possible, moment.tried)
    template = Manifest.read(folder / TEMPLATE)
    following = publish_random(root, template).name
    if versions.number(following) <= live:
        raise Broken(f"version {following} was published after {live}")
    _whole(root, [following], None)
    if live and moment.tried is None and previous(root).name != expected[-1]:
        raise Broken(f"one would go back to {previous(root).name}, and {expected[-1]} was live")


def _whole(root: Path, possible: list[str], tried: Entry | None) -> int:
    sequence, version = published_check(root), versions.resolve(root)
    refused = tried is not None and len(possible) < 2  # not acknowledged before the program ended
    if version.name not in possible and not refused:
        raise Broken(f"{version.name} is live, expected one of {possible}")
    return sequence


def _published(root: Path, template: Manifest, keep: int | None) -> dict[str, Any]:
    return {"version": publish_random(root, template, keep).name}


def _activated(root: Path, name: str) -> dict[str, Any]:
    name = name or previous(root).name
    activate(root, name)
    return {"version": name}


def template_of(version: Path, folder: Path) -> Path:
    """Create the initial folder of the workload; only the manifest of the version is needed."""
    (folder / TEMPLATE).mkdir(parents=True)
    shutil.copyfile(version / MANIFEST, folder / TEMPLATE / MANIFEST)
    return folder
