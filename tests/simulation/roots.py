"""Workload: two processes change, compact and switch a whole root; and the check after a power failure."""

import random
from pathlib import Path
from typing import Any

from recall.publish.derived import compact
from tests.simulation.model import Changes, Line, Truth, Value
from tests.simulation.power import Broken, Moment
from tests.simulation.process import Process, values
from tests.simulation.workload import Marks
from tests.simulation.world import World

STEPS = 20
APART = ("die", "damage", "copy", "elsewhere", "keep", "repair", "backup", "restore", "take")
"""Excluded events: crashes and damage come from outside, and external file operations are not fsynced."""


class MarkedWorld(World):
    """Reports acknowledgements."""

    def work(self, marks: Marks) -> None:
        """Run random events."""
        marks.say(begin="root")
        for process in self.processes:
            process.start()
        for number in range(STEPS):
            self.draw = random.Random(f"{self.seed} {number}")
            marks.carry_out(self._marked, do="step")
        for process in self.processes:
            process.stop()

    def _marked(self) -> dict[str, Any]:
        self.step()
        truth = self.truth
        return {
            "said": self.said[-1],
            "changes": truth.changes,
            "users": truth.users,
            "versions": [[version, line] for version, line in truth.versions.items()],
            "lines": [[dict(line.table), line.model] for line in truth.lines],
        }


def work(folder: Path, draw: random.Random, marks: Marks) -> None:
    """Run the workload of a seed."""
    MarkedWorld(folder, folder, draw.randrange(1 << 30), without=APART, passed=("stale", "table")).work(marks)


def check(folder: Path, moment: Moment) -> None:
    """Check that acknowledged changes are served, the step in flight completely or not at all, and that the root is usable."""
    before = _truth(folder, moment.done[-1] if moment.done else None)
    after = _truth(folder, moment.next) if moment.next is not None else before
    process = Process("after", folder / "root")
    process.start()
    try:
        version = process.version
        if moment.tried is None and version not in before.versions:
            raise Broken(f"version {version} is live, and was never acknowledged")
        line = before.versions.get(version, after.versions.get(version, max(before.versions.values())))
        catalogue = process.catch_up()
        found = values(catalogue)
        possible = []
        for truth in (before, after):
            truth.lines, truth.versions[version] = after.lines, line  # the version may come from a table of the step in flight
            possible.append(truth.items(version))
        if found not in possible:
            wrong = {one: (found.get(one), possible[0].get(one)) for one in found.keys() | possible[0].keys()}
            raise Broken(f"items: {[(one, *both) for one, both in wrong.items() if both[0] != both[1]][:3]}")
        if catalogue.degraded:
            raise Broken(f"degraded without cause: {catalogue.degraded[0]}")
        for user in before.users.keys() | after.users.keys():
            record = process.loaded.users.get(user)
            history = () if record is None else record.history
            if history not in (before.users.get(user, ()), after.users.get(user, ())):
                raise Broken(f"user {user} took {history}, expected {before.users.get(user)}")
        _goes_on(process, found)
    finally:
        process.stop()


def _goes_on(process: Process, found: dict[str, Value]) -> None:
    """Check that the root can be changed, compacted and opened."""
    process.loaded.items.upsert({"later": {"price": 5.0}})
    expected = {**found, "later": Value(None, 5.0)}
    compact(process.root)
    process.look()
    if process.error or values(process.catch_up()) != expected:
        raise Broken(f"a compaction after the crash changed the answers: {process.error}")


def _truth(folder: Path, entry: dict[str, Any] | None) -> Truth:
    if entry is None:
        return World(folder, folder, 0).truth
    changes: Changes = [(item, None if value is None else Value(*value)) for item, value in entry["changes"]]
    lines = [Line({item: Value(*value) for item, value in table.items()}, model) for table, model in entry["lines"]]
    users = {user: tuple(items) for user, items in entry["users"].items()}
    return Truth(lines=lines, versions=dict(map(tuple, entry["versions"])), changes=changes, users=users)
