"""A simulation run: processes that share one root, random events, and the invariants checked after each.

All events follow from the seed. The log of a run records events and results without values that differ between machines, such
as times; the same seed gives the same log.
"""

import hashlib
import random
import shutil
import sqlite3
from collections.abc import Callable, Collection
from contextlib import closing, redirect_stderr, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson

from recall.bundle.activation import activate, previous
from recall.bundle.reader import load_bundle
from recall.bundle.versions import VERSIONS, live_name, number, versions
from recall.cli.bundle import activate as activate_version
from recall.errors import RecallError
from recall.publish.derived import adopt, compact
from recall.publish.rebuild import rebuild
from recall.store.items import tiers
from recall.store.items.log import JOURNAL, SqliteChangeLog
from recall.store.items.log_position import Change
from recall.store.users.profiles import Interaction
from recall.store.users.sqlite import USERS_LIVE, SqliteLiveUsers
from tests.simulation import shop
from tests.simulation.model import Changes, Line, Truth, Value, difference
from tests.simulation.power import Broken
from tests.simulation.process import Process, die, items_of, table_of, values
from tests.store.items.entries import last

NEW = [f"new{number}" for number in range(4)]
STRANGE = "strange"
"""An item that is only in the log of another root; it may be served or not after that log was placed here."""
USERS = [f"v{number}" for number in range(3)]


@dataclass(eq=False)
class Fault(Broken):
    """A violated invariant.

    Attributes:
        kind: the invariant.
        symptom: the observed symptom.
    """

    kind: str
    symptom: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.symptom}"


@dataclass
class World:
    """One run.

    Attributes:
        said: the log.
        passed: invariants whose violations are ignored.
        without: excluded events.
    """

    shop: Path
    folder: Path
    seed: int
    passed: Collection[str] = ()
    without: Collection[str] = ()
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self.root = self.folder / shop.HERE
        if not self.root.exists():
            shop.fresh_root(self.shop, self.root)
        self.truth = Truth()
        self.processes = [Process(name, self.root) for name in ("a", "b")]
        self.scored: dict[tuple[int, str, Value], float] = {}
        self.keyed: list[tuple[str, Changes, int]] = []
        self.copies: list[Path] = []
        self.backups: list[tuple[Path, Truth, int]] = []
        self.damages = 0
        bundle = load_bundle(self.root)
        self.template = bundle.items()
        table = items_of(self.template)
        self.ids = [*table][:6]
        self.truth.lines.append(Line(table, 0))
        self.truth.versions[bundle.manifest.sequence] = 0

    def run(self, steps: int) -> None:
        """Run a number of events. Raises Fault."""
        # a few changes are enough for segments that are sealed, merged and indexed
        with patch.multiple(tiers, SEAL_AT=3, INDEX_AT=6):
            for process in self.processes:
                process.start()
            try:
                for number in range(steps):
                    self.draw = random.Random(f"{self.seed} {number}")  # random numbers of a step do not affect other steps
                    self.step()
                self.finish()
            finally:
                for process in self.processes:
                    process.stop()

    @property
    def digest(self) -> str:
        """Hash of the log."""
        return hashlib.sha256("\n".join(self.said).encode()).hexdigest()

    def step(self) -> None:
        """Run one event, drawn by weight."""
        running = [process for process in self.processes if process.runs]
        acts: list[tuple[int, str, Callable[[Process], str]]] = [
            (30, "change", self.change),
            (8, "again", self.again),
            (10, "user", self.user),
            (12, "read", self.read),
            (8, "look", self.look),
            (6, "compact", self.compact),
            (5, "activate", self.activate),
            (3, "rebuild", self.rebuild),
            (4, "die", self.die),
            (4, "restart", self.restart),
            (2, "copy", self.copy),
            (2, "elsewhere", self.elsewhere),
            (3, "keep", self.keep),
            (3, "damage", self.damage),
            (3, "repair", self.repair),
            (2, "backup", self.backup),
            (2, "take", self.take),
            (1, "restore", self.restore),
        ]
        acts = [one for one in acts if one[1] not in self.without]
        _, name, act = self.draw.choices(acts, [weight for weight, _, _ in acts])[0]
        process = self.draw.choice(running)
        try:
            came = act(process)
        except Fault as fault:
            self.say(f"{process.name} {name}: {fault}")
            raise
        self.say(f"{process.name} {name}: {came}")

    def say(self, line: str) -> None:
        """Write a line of the log."""
        self.said.append(line.replace(str(self.folder), ""))

    def fail(self, kind: str, symptom: str) -> None:
        """Raise Fault, unless faults of this kind are ignored."""
        if kind not in self.passed:
            raise Fault(kind, symptom)
        self.say(f"passed over {kind}")

    # events of processes

    def change(self, process: Process) -> str:
        """Change or delete some items, then query the other process at once."""
        changes = self.drawn()
        key = f"key {len(self.said)}" if self.draw.random() < 0.2 else None
        try:
            sequence, token = self.carried_out(process, changes, key)
        except RecallError as error:
            self.refused(error)
            return f"refused, {type(error).__name__}"
        if self.truth.damaged is None and self.truth.pending:
            self.settle_pending(process)
        self.truth.changes += changes
        if not self.damages and sequence != len(self.truth.changes):
            self.fail("log", f"change {len(self.truth.changes)} was given sequence {sequence}")
        if key is not None:
            self.keyed.append((key, changes, sequence))
        for reader in (process, self.draw.choice([one for one in self.processes if one.runs])):
            catalogue = reader.ask()
            found, expected = values(catalogue), self.truth.items(reader.version)
            for item, _ in changes:
                if found.get(item) != expected.get(item) and not (reader is not process and catalogue.degraded):
                    kind = "log" if reader is process else "stale"
                    self.fail(
                        kind, f"{reader.name} was asked after {process.name} had acknowledged: {difference(found, expected)}"
                    )
            if token and not self.damages and not reader.loaded.items.has_seen(token):
                self.fail("stale", f"{reader.name} has not seen what its token names")
        return f"{[item for item, _ in changes]} {'' if self.damages else sequence}"

    def again(self, process: Process) -> str:
        """Retry an acknowledged batch with its key."""
        if not self.keyed or self.damages:
            return "nothing to send"
        key, changes, sequence = self.draw.choice(self.keyed)
        if len({value is None for _, value in changes}) > 1:
            return "nothing to send"
        if (got := self.carried_out(process, changes, key)[0]) != sequence:
            self.fail("log", f"batch {key!r} was answered with {got} and before with {sequence}")
        return f"{sequence}"

    def user(self, process: Process) -> str:
        """Log an interaction, then query the other process at once."""
        user, item = self.draw.choice(USERS), self.draw.choice(self.ids)
        self.settle_user(process)
        process.loaded.users.log_interactions([Interaction(user, item)])
        self.truth.users[user] = (item, *self.truth.users.get(user, ()))
        for reader in (one for one in self.processes if one.runs):
            self.check_users(reader)
        return f"{user} {item}"

    def read(self, process: Process) -> str:
        """Check, without polling the log, that the served state existed at some time."""
        catalogue = process.loaded.items.current()
        if self.truth.damaged is None and not self.truth.pending and not self.damages:
            found, expected = values(catalogue), self.truth.items(process.version, catalogue.sequence)
            if found != expected:
                self.fail(
                    "log", f"{process.name} serves what never was, at {catalogue.sequence}: {difference(found, expected)}"
                )
        return f"{len(values(catalogue))} items"

    def look(self, process: Process) -> str:
        """Update the process to the live version and all changes, and check it."""
        process.look()
        self.check(process)
        if not process.error and number(live_name(self.root)) != process.version:
            self.fail("log", f"{process.name} serves version {process.version}, and {live_name(self.root)} is live")
        if process.error:
            self.fail("elsewhere", f"the live version was activated, and is refused: {process.error}")
        return f"version {process.version}"

    def compact(self, process: Process) -> str:
        """Compact the live version; answers must not change."""
        try:
            report = compact(self.root)
        except RecallError as error:
            self.refused(error)
            return f"refused, {type(error).__name__}"
        if report is None:
            return "nothing to do"
        self.published(report.manifest.sequence, self.truth.versions[report.manifest.parent or 0])
        self.check_new()
        return f"version {report.manifest.sequence}"

    def activate(self, process: Process) -> str:
        """Activate another version, or roll back."""
        try:
            back = previous(self.root).name if self.draw.random() < 0.5 else ""
        except RecallError:
            back = ""
        return self.switched(back or self.draw.choice([one.name for one in versions(self.root)]))

    def rebuild(self, process: Process) -> str:
        """Rebuild from a new table that does not contain the changes."""
        if self.damages:
            return "not after the log was damaged"  # changes it lacked are only in versions, and are reported
        items = {one: Value(f"c{self.draw.randrange(4)}", float(self.draw.randrange(100))) for one in self.ids + NEW[:2]}
        path = self.folder / "items.parquet"
        table_of(items, self.template).write_parquet(path)
        report = rebuild(self.root, path, self.root)
        self.truth.lines.append(Line(items, self.truth.lines[self.truth.versions[report.manifest.parent or 0]].model))
        self.published(report.manifest.sequence, len(self.truth.lines) - 1)
        self.check_new("table")
        return f"version {report.manifest.sequence}"

    def elsewhere(self, process: Process) -> str:
        """Copy a version trained elsewhere and activate it, if permitted."""
        if shop.FOREIGN in self.truth.versions:
            return "was here before"
        (foreign,) = versions(self.shop / shop.ELSEWHERE)
        shutil.copytree(foreign, self.root / VERSIONS / foreign.name)
        self.truth.lines.append(Line(items_of(load_bundle(foreign).items()), 1))
        self.published(shop.FOREIGN, len(self.truth.lines) - 1)
        return self.switched(foreign.name)

    def die(self, process: Process) -> str:
        """Kill the process within an operation, and restart it."""
        self.settle_pending(process)
        self.settle_user(process)
        line = int(self.draw.paretovariate(0.4)) if self.draw.random() < 0.5 else self.draw.randrange(1, 400)
        what, changes = self.draw.choice(("change", "user", "compact", "activate")), self.drawn()
        names = [one.name for one in versions(self.root)]
        taken, name = (self.draw.choice(USERS), self.draw.choice(self.ids)), self.draw.choice(names)
        acts: dict[str, Callable[[], Any]] = {
            "change": lambda: self.carried_out(process, changes, None),
            "user": lambda: process.loaded.users.log_interactions([Interaction(*taken)]),
            "compact": lambda: compact(self.root),
            "activate": lambda: activate(self.root, name),
        }
        live, before = number(live_name(self.root)), max(self.logged(0), default=0)
        try:
            died = die(self.root, acts[what], line)
        except RecallError as error:
            self.refused(error)
            return f"refused, {type(error).__name__}"
        if what == "change":
            self.truth.pending = changes
        if what == "user":
            self.truth.pending_user = taken
        for made in versions(self.root):
            self.truth.versions.setdefault(number(made.name), self.truth.versions[live])
        process.stop()
        self.check_new()
        self.begin(process)
        self.settle_pending(process, before)
        self.settle_user(process)
        return f"{what}, {'killed' if died else 'came through'}"

    def restart(self, process: Process) -> str:
        """Restart the process, or all of them."""
        stopped = [process] if self.draw.random() < 0.6 else [one for one in self.processes if one.runs]
        for one in stopped:
            one.stop()
        for one in stopped:
            self.begin(one)
        return " ".join(one.name for one in stopped)

    def repair(self, process: Process) -> str:
        """Let the process repair an incomplete log."""
        for one in self.processes:
            one.catch_up()
            try:
                one.repair()
            except RecallError as error:
                self.refused(error)
        return "done"

    # events of files

    def copy(self, process: Process) -> str:
        """Copy the root without SQLite's -wal files; the copy must be complete or report degradation."""
        if self.truth.damaged is not None:
            return "not while the log lacks something"
        self.settle_pending(process)
        self.settle_user(process)
        place = self.folder / "copy"
        shutil.copytree(self.root, place, ignore=shutil.ignore_patterns("*-wal", "*-shm"))
        reader = Process("copy", place)
        try:
            reader.start()
            catalogue = reader.loaded.items.current()
            found, expected = values(catalogue), self.truth.items(reader.version)
            found.pop(STRANGE, None)
            if found != expected and not catalogue.degraded:
                self.fail("copy", f"a copy without -wal is not whole and does not say so: {difference(found, expected)}")
            self.check_users(reader, "copy")
        except RecallError as error:
            self.fail("copy", f"a copy cannot be opened: {error}")
        finally:
            reader.stop()
            shutil.rmtree(place)
        return "made"

    def keep(self, process: Process) -> str:
        """Make a proper copy of the log for later."""
        if not (self.root / JOURNAL).exists() or self.damages:
            return "there is none"
        place = self.folder / f"kept{len(self.copies)}.sqlite"
        source, target = sqlite3.connect(self.root / JOURNAL), sqlite3.connect(place)
        source.backup(target)
        source.close()
        target.close()
        self.copies.append(place)
        return "made"

    def damage(self, process: Process) -> str:
        """Remove the log, or replace it by an older copy or by that of another root, while served or not."""
        if not (self.root / JOURNAL).exists() or self.damages > 1:
            return "there is none"
        kinds = ["removed", "another", *(["restored"] if self.copies else [])]
        kind, down = self.draw.choice(kinds), self.draw.random() < 0.3
        self.settle_pending(process)
        for one in self.processes:
            if down:
                one.stop()
            elif self.draw.random() < 0.5:
                one.catch_up()
        for path in self.root.glob(f"{JOURNAL}*"):
            path.unlink()
        if kind == "restored":
            shutil.copy(self.draw.choice(self.copies), self.root / JOURNAL)
        if kind == "another":
            other = SqliteChangeLog(self.folder / f"other{self.damages}" / JOURNAL)
            other.path.parent.mkdir()
            other.append([Change(STRANGE, {"price": 1.0})])
            other.close()
            shutil.copy(other.path, self.root / JOURNAL)
        self.damages += 1
        self.truth.damaged = len(self.truth.changes)
        for one in self.processes:
            if not one.runs:
                self.begin(one)
        return f"{kind}{' while nothing ran' if down else ''}"

    def backup(self, process: Process) -> str:
        """Back the root up with `backup`; the copy must be complete."""
        if find_spec("recall.publish.backup") is None:
            return "not known"
        from recall.publish.backup import backup

        if self.damages:
            return "not after the log was damaged"
        self.settle_pending(process)
        self.settle_user(process)
        place = self.folder / f"backup{len(self.backups)}"
        backup(self.root, place)
        reader = Process("backup", place)
        reader.start()
        try:
            self.check(reader)
            self.check_users(reader)
        finally:
            reader.stop()
        self.backups.append((place, deepcopy(self.truth), len(self.keyed)))
        return "made"

    def restore(self, process: Process) -> str:
        """Restore a backup; later changes are lost, as expected."""
        if not self.backups or self.damages:
            return "there is none"
        for one in self.processes:
            one.stop()
        place, truth, keyed = self.draw.choice(self.backups)
        shutil.rmtree(self.root)
        shutil.copytree(place, self.root)
        self.truth, self.keyed[keyed:], self.copies = deepcopy(truth), [], []
        for one in self.processes:
            self.begin(one)
            self.check_users(one)
        return f"{len(self.truth.changes)} changes"

    def take(self, process: Process) -> str:
        """Publish a version trained elsewhere with `adopt`, which numbers it."""
        if self.damages:
            return "not after the log was damaged"
        (foreign,) = versions(self.shop / shop.ELSEWHERE)
        adopted = adopt(foreign, self.root)
        self.truth.lines.append(Line(items_of(load_bundle(foreign).items()), 1))
        self.published(adopted.manifest.sequence, len(self.truth.lines) - 1)
        self.check_new()
        return f"version {adopted.manifest.sequence}"

    # invariants

    def finish(self) -> None:
        """At the end, restart everything and check that it can be changed and agrees."""
        for process in self.processes:
            self.settle_pending(process)
            self.settle_user(process)
            process.stop()
        for process in self.processes:
            self.begin(process)
        changes: Changes = [(NEW[0], Value("c1", 1.5))]
        self.carried_out(self.processes[0], changes, None)
        self.truth.changes += changes
        for process in self.processes:
            process.look()
            self.check(process)
            if values(process.catch_up()).get(NEW[0]) != Value("c1", 1.5):
                self.fail("log", f"{process.name} does not serve what was acknowledged last")
        first, second = (values(process.ask()) for process in self.processes)
        if first != second:
            self.fail("log", f"two processes do not agree: {difference(first, second)}")
        self.check_new()
        self.say(f"end: {len(self.truth.changes)} changes, {len(versions(self.root))} versions")

    def check_new(self, kind: str = "log") -> None:
        """Check that a new process can open the root and serves everything."""
        process = Process("new", self.root)
        try:
            process.start()
        except RecallError as error:
            self.fail(kind, f"the root cannot be opened: {error}")
            return
        try:
            self.check(process, kind)
        finally:
            process.stop()

    def check(self, process: Process, kind: str = "log") -> None:
        """Check that a process serves everything after polling the log, or reports degradation."""
        catalogue = process.catch_up()
        found, expected = values(catalogue), self.truth.items(process.version)
        found.pop(STRANGE, None)
        if found != expected and self.truth.pending and found == self.truth.with_pending(process.version):
            self.settle_pending(process)
            expected = self.truth.items(process.version)
        if self.truth.damaged is None:
            if found != expected:
                self.fail(
                    kind, f"{process.name} {'is degraded and ' if catalogue.degraded else ''}{difference(found, expected)}"
                )
            elif catalogue.degraded:
                self.fail(kind, f"{process.name} is degraded without cause: {catalogue.degraded[0]}")
        elif found == expected and not catalogue.degraded:
            if process.name == "new" and not process.loaded.bundle.manifest.folded:
                self.truth.damaged = None  # the log is complete, because nothing came from the version
        elif not catalogue.degraded:
            self.fail(kind, f"{process.name} lost changes and does not say so: {difference(found, expected)}")
        else:
            for item in sorted(found.keys() | expected.keys()):
                possible = self.truth.possible(process.version, item)
                if found.get(item) not in possible:
                    symptom = f"{item} is {found.get(item)}, expected one of {sorted(map(str, possible))}"
                    self.fail(kind, f"{process.name}, degraded: {symptom}")
        self.check_scores(process, found)

    def check_scores(self, process: Process, found: dict[str, Value]) -> None:
        """Check that equal items have equal scores everywhere."""
        scores = process.scores()
        scores.pop(STRANGE, None)
        if scores.keys() != found.keys():
            self.fail("log", f"{process.name} lists {len(scores)} items, and has {len(found)}")
        line = self.truth.lines[self.truth.versions[process.version]]
        for item, score in scores.items():
            if item not in found or item in self.template["item_id"]:
                continue  # the template has further features, which are not compared
            before = self.scored.setdefault((line.model, item, found[item]), score)
            if abs(before - score) > 1e-5 * max(1.0, abs(before)):
                self.fail("log", f"{process.name} scores {item} {score}, and it was {before}")

    def check_users(self, process: Process, kind: str = "users") -> None:
        """Check the histories of all users."""
        for user, expected in self.truth.users.items():
            record, error = process.loaded.users.known([user])[user]
            found = () if record is None else record.history
            if error and kind != "copy":
                self.fail(kind, f"{process.name} is degraded without cause: {error}")
            symptom = error or (kind == "copy" and self.lacks_users(process))
            if found != expected and not symptom:
                self.fail(kind, f"{process.name} knows that {user} took {found}, expected {expected}")

    # helpers

    def lacks_users(self, process: Process) -> bool:
        """Whether the users file reports missing changes."""
        store = SqliteLiveUsers(process.root / USERS_LIVE)
        try:
            return bool(store.error())
        finally:
            store.close()

    def switched(self, name: str) -> str:
        """Activate a version; one that cannot be served must be refused."""
        try:
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                activate_version(self.root, name, None, True)
        except RecallError as error:
            if number(name) != shop.FOREIGN and not self.damages:
                self.refused(error)
            return f"refused, {type(error).__name__}"
        self.check_new("elsewhere" if number(name) == shop.FOREIGN else "log")
        return f"{number(name)}"

    def begin(self, process: Process) -> None:
        """Start a process; this must succeed."""
        try:
            process.start()
        except RecallError as error:
            self.say(f"{process.name} cannot start: {error}")
            raise Fault("log", f"a process cannot start: {error}") from None
        self.check(process)

    def refused(self, error: RecallError) -> None:
        """Check that nothing is refused while the files are intact."""
        if self.truth.damaged is None and "every item was deleted" not in str(error):
            self.fail("log", f"refused without cause: {error}")

    def carried_out(self, process: Process, changes: Changes, key: str | None) -> tuple[int, str]:
        """Upsert or delete items; return the sequence and the token of the change."""
        items = process.loaded.items
        given = {item: dict(zip(Value._fields, value, strict=True)) for item, value in changes if value is not None}
        receipt = items.upsert(given, key=key) if given else items.delete([item for item, _ in changes], key=key)
        return receipt.sequence, receipt.token

    def drawn(self) -> Changes:
        """Draw changes of some items: all upserts, or all deletions."""
        items = self.draw.sample(self.ids + NEW, self.draw.choice((1, 1, 2, 4)))
        if self.draw.random() < 0.3:
            return [(item, None) for item in items]
        return [(item, Value(self.draw.choice(("c0", "c1", None)), float(self.draw.randrange(50)))) for item in items]

    def logged(self, after: int) -> dict[int, tuple[str, dict[str, object] | None]]:
        """Return the log's items and values, None for a deleted item, by sequence."""
        if not (self.root / JOURNAL).exists():
            return {}
        with closing(sqlite3.connect(self.root / JOURNAL)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'entries'").fetchone():
                return {}
            rows = connection.execute("SELECT sequence, item_id, features FROM entries WHERE sequence > ?", (after,))
            return {sequence: (item, None if raw is None else orjson.loads(raw)) for sequence, item, raw in rows}

    def settle_pending(self, process: Process, before: int = 0) -> None:
        """Determine whether changes in flight at a crash were applied.

        A log that was damaged does not count them, so its entries after `before` are compared.
        """
        if not self.truth.pending or not process.runs:
            return
        if self.damages:
            pending, self.truth.pending = self.truth.pending, []
            given = [(item, value and {k: v for k, v in value._asdict().items() if v is not None}) for item, value in pending]
            there = self.logged(before).values()
            self.truth.changes += pending if all(one in there for one in given) else []
            return
        found = values(process.catch_up())
        pending, self.truth.pending = self.truth.pending, []
        served = all(found.get(item) == value for item, value in pending) and found != self.truth.items(process.version)
        written = last(SqliteChangeLog(self.root / JOURNAL)) > len(self.truth.changes)
        if served or written:
            self.truth.changes += pending

    def settle_user(self, process: Process) -> None:
        """Determine whether a user change in flight at a crash was applied."""
        if self.truth.pending_user is None or not process.runs:
            return
        (user, item), self.truth.pending_user = self.truth.pending_user, None
        record = process.loaded.users.get(user)
        if record is not None and record.history == (item, *self.truth.users.get(user, ())):
            self.truth.users[user] = record.history

    def published(self, sequence: int, line: int) -> None:
        """Record the source of a new version."""
        if sequence in self.truth.versions:
            self.fail("log", f"version {sequence} was published twice")
        self.truth.versions[sequence] = line
