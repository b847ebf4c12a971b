"""Random changes and searches compared with brute force over a dictionary of items."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from recall._arrays import Float32
from recall._file_system import acquire
from recall.bundle.reader import load_bundle
from recall.config import IndexConfig
from recall.index import topk
from recall.index.registry import build_index
from recall.publish.derived import compact
from recall.store.items import segment, tiers
from recall.store.items.catalog import Catalog
from recall.store.items.delta import ItemReader
from recall.store.items.log import JOURNAL, SqliteChangeLog
from recall.store.items.snapshot import CatalogSnapshot

NAMES = [*(f"i{number}" for number in range(15)), *(f"new {number}" for number in range(12)), "never"]
IDS = st.sampled_from(NAMES)
VALUES = st.fixed_dictionaries(
    {}, optional={"category": st.sampled_from(["c0", "c1", "c2"]), "price": st.sampled_from([0.0, 1.0, 30.0, 500.0])}
)


SHARES = st.sampled_from([None, 0.1, 0.5, 1.0])
EXAMPLES = 6


class Changes(RuleBasedStateMachine):
    """The catalogue of the small data set under random changes."""

    published: Path
    kind: str

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.root = self.folder / "root"
        shutil.copytree(self.published, self.root)
        bundle = load_bundle(self.root, verify=False)
        rows = bundle.items().rows(named=True)
        self.items: dict[str, dict[str, object]] = {row.pop("item_id"): row for row in rows}
        self.sequence = 0
        self.rng = np.random.default_rng(0)
        self.reopen()

    def teardown(self) -> None:
        if hasattr(self, "live"):
            self.live.close()
            self.held.close()
            shutil.rmtree(self.folder)

    @rule()
    def reopen(self) -> None:
        if hasattr(self, "live"):
            self.live.close()
        if hasattr(self, "held"):
            self.held.close()
        self.bundle = load_bundle(self.root, verify=False)
        held = acquire(self.bundle.folder)  # compaction publishes versions, and the oldest unused ones are removed
        assert held is not None
        self.held = held
        queries = np.eye(self.bundle.tables.dim, dtype=np.float32)
        config = IndexConfig.model_validate({"kind": self.kind})
        index = build_index(np.asarray(self.bundle.item_vectors), queries, config, seed=0, threads=1)
        self.live = Catalog(self.bundle, index, SqliteChangeLog(self.root / JOURNAL))
        self.reader = ItemReader(self.bundle)

    @rule(items=st.dictionaries(IDS, VALUES, max_size=6))
    def upsert(self, items: dict[str, dict[str, object]]) -> None:
        known = sum(one in self.items for one in items)
        self.items |= items
        self.sequence += len(items)
        assert self.live.upsert(items) == (self.sequence, known)

    @rule(ids=st.lists(IDS, max_size=6))
    def delete(self, ids: list[str]) -> None:
        known = sum(one in self.items for one in set(ids))
        for one in ids:
            self.items.pop(one, None)
        self.sequence += len(set(ids))
        assert self.live.delete(ids) == (self.sequence, known)

    @rule()
    def fold(self) -> None:
        if not self.items:
            return
        report = compact(self.root)
        if report is not None:
            assert report.manifest.folded == self.sequence
            assert sorted(load_bundle(self.root).item_ids.values) == sorted(self.items)

    @rule(
        n=st.integers(1, 30),
        exclude=st.lists(IDS, max_size=4),
        share=st.sampled_from([None, 0.1, 0.5, 1.0]),
        exact=st.booleans(),
    )
    def search(self, n: int, exclude: list[str], share: float | None, exact: bool) -> None:
        catalogue = self.live.current()
        query = self.rng.standard_normal((3, self.bundle.tables.dim)).astype(np.float32)
        rows = catalogue.rows(exclude)
        excluded = [rows[rows >= 0], np.empty(0, dtype=np.int64), rows[rows >= 0]]
        scope, among = None, set(self.items)
        if share is not None:  # a filter ignores replaced and deleted items
            mask = self.rng.random(catalogue.size) < share
            scope = catalogue.masks_of(mask)
            among = {one for one in self.items if mask[catalogue.rows([one])[0]]}
        hits = catalogue.search(query, n, excluded, [scope, scope, None], exact=exact)
        for at, (without, within) in enumerate([(exclude, among), ([], among), (exclude, set(self.items))]):
            eligible = [one for one in self.items if one not in without and one in within]
            self.check(catalogue, query[at], n, eligible, *hits[at])
            (alone,) = catalogue.search(query[at : at + 1], n, excluded[at : at + 1], [scope if at < 2 else None], exact=exact)
            np.testing.assert_array_equal(alone.rows, hits[at].rows)
            np.testing.assert_array_equal(alone.scores, hits[at].scores)

    def check(
        self, catalogue: CatalogSnapshot, query: Float32, n: int, eligible: list[str], rows: object, scores: object, exact: bool
    ) -> None:
        assert isinstance(rows, np.ndarray)
        assert isinstance(scores, np.ndarray)
        ids = catalogue.ids(rows)
        assert len(ids) == len(set(ids)) == min(n, len(eligible))
        assert set(ids) <= set(eligible)
        truth = {one: float(query @ self.vector(one)) for one in eligible}
        np.testing.assert_allclose(scores, [truth[one] for one in ids], rtol=1e-5, atol=1e-5)
        assert (np.diff(scores) <= 0).all()
        if exact:
            best = sorted(truth.values(), reverse=True)[: len(ids)]
            np.testing.assert_allclose(scores, best, rtol=1e-5, atol=1e-5)

    def vector(self, item_id: str) -> Float32:
        return self.reader.encode(self.reader.read({item_id: self.items[item_id]})).vectors[0]

    @invariant()
    def the_catalogue_holds_what_it_should(self) -> None:
        if not hasattr(self, "live"):
            return
        catalogue = self.live.current()
        assert catalogue.sequence == self.sequence
        rows = catalogue.rows(NAMES)
        assert [one for one, row in zip(NAMES, rows, strict=True) if row >= 0] == [one for one in NAMES if one in self.items]
        held = rows[rows >= 0]
        assert catalogue.ids(held) == [one for one in NAMES if one in self.items]
        if len(held):
            expected = np.stack([self.vector(one) for one in NAMES if one in self.items])
            np.testing.assert_allclose(catalogue.vectors(held), expected, rtol=1e-6, atol=1e-6)
            frame = catalogue.table(held[::-1])
            assert frame["item_id"].to_list() == catalogue.ids(held[::-1])
            assert frame["price"].to_list() == [self.items[one].get("price") for one in frame["item_id"]]
        assert sorted(catalogue.items()["item_id"]) == sorted(self.items)


@pytest.fixture(params=[(256, 256, 4096), (1, 1, 3)], ids=["usual", "many"])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Exercise the code paths for many changes on a small catalogue."""
    monkeypatch.setattr(segment, "_MAX_EXCLUDED", request.param[0])
    monkeypatch.setattr(topk, "_FEW", request.param[1])
    monkeypatch.setattr(tiers, "SEAL_AT", request.param[2])
    monkeypatch.setattr(tiers, "INDEX_AT", 2 * request.param[2])
    return


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("kind", ["exact", "cells", "ivf"])
def test_changes_and_searches_match_a_dictionary_model(published: Path, kind: str) -> None:
    machine = type("Changed", (Changes,), {"published": published, "kind": kind})
    run_state_machine_as_test(machine, settings=settings(max_examples=EXAMPLES, stateful_step_count=14, deadline=None))


def test_a_mask_covers_both_segments(published: Path) -> None:
    bundle = load_bundle(published)
    index = build_index(np.asarray(bundle.item_vectors), np.eye(bundle.tables.dim, dtype=np.float32), IndexConfig(), seed=0)
    live = Catalog(bundle, index)
    scope = live.current().masks(np.array([1, 3]))
    (mask,) = scope.masks
    assert mask.rows.tolist() == [1, 3]
    (found,) = live.current().search(np.ones((1, bundle.tables.dim), dtype=np.float32), 5, within=[scope])
    assert set(found.rows) == {1, 3}
    nothing = scope - scope
    (found,) = live.current().search(np.ones((1, bundle.tables.dim), dtype=np.float32), 5, within=[nothing])
    assert not len(found.rows)
