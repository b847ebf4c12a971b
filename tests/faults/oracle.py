"""The expected answer: brute-force search in float64 over the version, and the live changes, that an answer names."""

from collections.abc import Mapping
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recall.bundle.versions import VERSIONS
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.store.items.delta import ItemReader

NEAR = 1e-5
"""Tolerance for scores, relative to the larger one or to 1."""

Changes = Mapping[str, Mapping[str, object] | None]


class Oracle:
    """Checks answers against every version of a root and every acknowledged change."""

    def __init__(self, root: Path) -> None:
        """Open a root; versions are loaded when an answer first names them."""
        self._root = root
        self._versions: dict[str, _Version] = {}
        self._changes: list[tuple[int, Changes]] = []

    def changed(self, sequence: int, changes: Changes) -> None:
        """Register an acknowledged batch of items, None for a deleted one, by the sequence of its last change."""
        self._changes.append((sequence, changes))
        self._changes.sort(key=lambda one: one[0])

    def fault(self, answer: Mapping[str, Any], user_id: str | None, n: int) -> str:
        """Describe what is wrong with an answer to a plain request for `n` items; empty if it is correct."""
        name = answer["bundle"]
        if name not in self._versions:
            folder = self._root / VERSIONS / name
            if not folder.is_dir():
                return f"it names the version {name}, which does not exist"
            self._versions[name] = _Version(folder)
        return self._versions[name].fault(answer, user_id, n, self._changes)

    def recall(self, answer: Mapping[str, Any], user_id: str | None, n: int) -> float:
        """Return the recall of an answer; call `fault` for its version first."""
        return self._versions[answer["bundle"]].recall(answer, user_id, n, self._changes)

    def close(self) -> None:
        """Close all loaded versions."""
        for version in self._versions.values():
            version.recommender.close()
        self._versions.clear()


class _Version:
    def __init__(self, folder: Path) -> None:
        self.recommender = Recommender.load(folder, pause=None)
        bundle = self.recommender.bundle
        self._ids = list(bundle.item_ids.ids(np.arange(len(bundle.item_vectors))))
        self._vectors = np.asarray(bundle.item_vectors, dtype=np.float64)
        self._folded = bundle.manifest.folded
        self._users: dict[str | None, tuple[npt.NDArray[np.float64], frozenset[str]]] = {}
        self._scored: dict[tuple[str | None, int], dict[str, float]] = {}

    @cached_property
    def _reader(self) -> ItemReader:
        return ItemReader(self.recommender.bundle)

    def fault(self, answer: Mapping[str, Any], user_id: str | None, n: int, changes: list[tuple[int, Changes]]) -> str:
        scores = self._scores(user_id, answer["sequence"], changes)
        found = [(item["item_id"], item["score"]) for item in answer["items"]]
        if len(found) != min(n, len(scores)):
            return f"{len(found)} items, expected {min(n, len(scores))}"
        if len({item_id for item_id, _ in found}) < len(found):
            return "an item appears twice"
        best = sorted(scores.values(), reverse=True)
        for position, (item_id, score) in enumerate(found):
            if item_id not in scores:
                return f"the item at position {position} does not exist, is deleted, or was seen by the user"
            near = NEAR * max(1.0, abs(score))
            if abs(scores[item_id] - score) > near or abs(best[position] - score) > near:
                expected = f"{scores[item_id]:.7g} for the item and {best[position]:.7g} at this position"
                return f"position {position}: score {score:.7g}, expected {expected}"
        return ""

    def recall(self, answer: Mapping[str, Any], user_id: str | None, n: int, changes: list[tuple[int, Changes]]) -> float:
        scores = self._scores(user_id, answer["sequence"], changes)
        best = sorted(scores.values(), reverse=True)[:n]
        near = NEAR * max(1.0, abs(best[-1]))
        found = {item["item_id"] for item in answer["items"]}
        return sum(scores.get(item_id, -inf) >= best[-1] - near for item_id in found) / len(best)

    def _scores(self, user_id: str | None, sequence: int, changes: list[tuple[int, Changes]]) -> dict[str, float]:
        last = max((at for at, _ in changes if at <= sequence), default=0)
        key = (user_id, last)
        if key not in self._scored:
            vector, seen = self._user(user_id)
            scores = dict(zip(self._ids, (self._vectors @ vector).tolist(), strict=True))
            upserted: dict[str, Mapping[str, object]] = {}
            for at, batch in changes:
                if self._folded < at <= sequence:
                    for item_id, values in batch.items():
                        if values is None:
                            scores.pop(item_id, None)
                            upserted.pop(item_id, None)
                        else:
                            upserted[item_id] = values
            if upserted:
                read = self._reader.encode(self._reader.read(upserted))
                scores |= zip(read.ids, (np.asarray(read.vectors, dtype=np.float64) @ vector).tolist(), strict=True)
            if len(self._scored) > 2000:
                self._scored.clear()
            self._scored[key] = {item_id: score for item_id, score in scores.items() if item_id not in seen}
        return self._scored[key]

    def _user(self, user_id: str | None) -> tuple[npt.NDArray[np.float64], frozenset[str]]:
        if user_id not in self._users:
            record = None if user_id is None else self.recommender.users.get(user_id)
            vector = self.recommender.user_vectors([Request(user_id=user_id)])[0].astype(np.float64)
            self._users[user_id] = (vector, frozenset(record.seen if record is not None else ()))
        return self._users[user_id]
