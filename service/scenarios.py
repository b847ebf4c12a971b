"""Scenarios: named presets of requests, in a file that is followed."""

import logging
import threading
import time
import tomllib
from pathlib import Path

from recall import Degraded, RecallError, Recommender
from recall.bundle.activation import NAME
from recall.bundle.versions import SCENARIOS
from recall.errors import did_you_mean
from service.errors import Kind, ProblemError, parsed
from service.schemas import RecommendRequest, Scenario, ScenarioRequest

_SETTLED = 0.1  # seconds after a write in which a file may be half written

log = logging.getLogger("service")


class Scenarios:
    """The scenarios of a root; a file that is not valid changes nothing.

    Attributes:
        known: by name.
        error: why the current file is not in use, as a sentence; empty if it is.
    """

    def __init__(self, root: Path | None) -> None:
        """Read nothing yet; without a root there are none."""
        self._path = None if root is None else root / SCENARIOS
        self._seen: object = None
        self._looking = threading.Lock()
        self.known: dict[str, Scenario] = {}
        self.error = ""

    @property
    def degraded(self) -> tuple[Degraded, ...]:
        """Degradation that answers report of the file."""
        return (Degraded("scenarios", self.error),) if self.error else ()

    def look(self, recommender: Recommender) -> None:
        """Read the file if it has changed, or if another bundle is served.

        Args:
            recommender: of the bundle, with which each scenario is checked.
        """
        if self._path is None:
            return
        with self._looking:  # a request for a new scenario waits for the look that is reading it
            try:
                found = self._path.stat()
                seen = (found.st_mtime_ns, found.st_size, found.st_ino, recommender.bundle.manifest.version)
                if seen == self._seen or 0 <= time.time() - found.st_mtime < _SETTLED:
                    return
                self._seen = seen
                self.known, self.error = _read(self._path, recommender), ""
            except FileNotFoundError:
                self._seen, self.known, self.error = None, {}, ""
            except (OSError, ValueError, RecallError) as error:
                reason = f"{SCENARIOS}: {error}"
                if reason != self.error:  # a file that cannot be examined is found again by every look
                    log.error("%s; the scenarios before it stay", reason)
                self.error = reason

    def request(self, name: str, body: ScenarioRequest) -> RecommendRequest:
        """Return the request of a scenario for one user.

        Args:
            name: of the scenario.
            body: what the request adds.

        Raises:
            ProblemError: There is no such scenario.
        """
        if name not in self.known:
            raise ProblemError(Kind.NO_SCENARIO, did_you_mean(name[:64], self.known))
        preset = self.known[name].model_dump(mode="json", exclude_unset=True, exclude={"description"})
        added = body.model_dump(mode="json", exclude_unset=True)
        if body.page_token is not None:
            preset = {}
        elif exclude := preset.get("exclude"):
            added["exclude"] = [*exclude, *added.get("exclude", [])]
        return parsed(RecommendRequest, {**preset, **added, "tokens": True})


def _read(path: Path, recommender: Recommender) -> dict[str, Scenario]:
    """Read and check a file; may raise ValueError, OSError or RecallError."""
    if not path.is_file():
        raise ValueError("it is not a file")  # reading a pipe would wait for a writer
    found = {}
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    for name, values in tables.items():
        if not NAME.fullmatch(name):
            raise ValueError(f"scenario {name[:64]!r}: a name has letters, digits and . _ -, at most 64 of them")
        if not isinstance(values, dict):
            raise ValueError(f"{name!r} is a key outside of a scenario: write [NAME] above it")
        try:
            found[name] = parsed(Scenario, values)
            recommender.recommend(found[name].request())  # its columns are those of the bundle
        except ProblemError as problem:
            faults = "; ".join(f"{one.pointer or 'all of it'}: {one.message}" for one in problem.faults)
            raise ValueError(f"scenario {name!r}, {faults}") from None
        except RecallError as error:
            raise ValueError(f"scenario {name!r}, {error.where}: {error.what}. {error.hint}") from None
    return found
