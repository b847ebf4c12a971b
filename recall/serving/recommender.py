"""Answers requests from a published bundle: encode, a weighted sum of rows, a search, and ids again. No torch."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np

from recall._arrays import Float32, Int64
from recall._ids import check_id
from recall.bundle.locks import VersionLock, acquire
from recall.bundle.reader import Bundle, load_bundle
from recall.bundle.versions import VERSIONS, resolve
from recall.errors import RequestError
from recall.features.csr import SparseRows
from recall.index.base import ItemIndex
from recall.index.flat import ExactIndex
from recall.index.registry import Checks, open_index, recheck
from recall.serving.explain import Explainer
from recall.serving.filters.resolve import FilterResolver
from recall.serving.listing import Listing
from recall.serving.query import Query, QueryBuilder
from recall.serving.request import Request, check_request
from recall.serving.rerank.item_columns import ItemColumns
from recall.serving.rerank.pipeline import RankedList, check_shaping, shape
from recall.serving.response import Absence, Explanation, Page, Prediction, Recommendations, Scores, Similar, UserVector
from recall.serving.scoring import Scorer
from recall.serving.similar import Similarity
from recall.serving.why_not import Absences
from recall.store.items.catalog import PAUSE, Catalog
from recall.store.items.log import JOURNAL, ChangeLog
from recall.store.items.snapshot import CatalogSnapshot, SegmentMasks, row_of
from recall.store.users.base import LiveUsers
from recall.store.users.profiles import UserProfiles


class Recommender:
    """One bundle, its index, its users, and the live changes of its items. Safe to share among threads.

    Attributes:
        bundle: what was published; it never changes.
        index: over the vectors of its items.
        users: those who are known, with what has changed of them.
        items: the catalogue with its live changes. An answer comes from the catalogue as it was at one moment.
        eligibility: what requests may filter by.
    """

    def __init__(self, bundle: Bundle, index: ItemIndex, users: UserProfiles, items: Catalog | None = None) -> None:
        """Join the parts of one bundle; `Recommender.load` does so from its folder."""
        self.bundle = bundle
        self.index = index
        self.users = users
        self.items = items if items is not None else Catalog(bundle, index)
        self.eligibility = FilterResolver(bundle)
        self._preparation = QueryBuilder(bundle, users)
        self._facets = ItemColumns(bundle)
        self._explainer = Explainer(bundle, self._facets)
        self._absences = Absences(self._preparation, self.eligibility, self._facets, self._explainer)
        self._scorer = Scorer(bundle, self._preparation, self._facets)
        self._similarity = Similarity(bundle, self._preparation, self.eligibility)
        self._listing = Listing(bundle)
        self._version = bundle.manifest.version
        self._held: VersionLock | None = None

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        verify: bool = True,
        threads: int = 1,
        root: Path | None = None,
        pause: float | None = PAUSE,
        users: LiveUsers | Literal["own"] | None = "own",
        own_index: bool = True,
    ) -> "Recommender":
        """Open a bundle and everything in it.

        Args:
            path: the folder of a bundle, or the root that holds published versions. Live changes to a root's items are
                followed: `items.upsert` and `items.delete` make them, and those of other processes are seen.
            verify: check every file's SHA-256 and every number; see `load_bundle`.
            threads: threads that one search may use. One is right for a server that answers many requests at once.
            root: the root whose live changes are followed, when `path` is the folder of one of its versions.
            pause: requests look for changes of other processes when so many seconds have passed since the last look; None
                leaves looking to `items.refresh`.
            users: what has changed of users since the bundle: "own" for what the root's file holds, None for nothing, or a
                store, which stays the caller's to close.
            own_index: open the bundle's index. Without it, the vectors are searched exactly and the index file is not looked
                at: for making another one.

        Raises:
            BundleError: the bundle is missing, damaged or of a newer format.
            IndexFileError: the index does not fit the vectors, or fails the checks that were stored with it.
            JournalError: the live changes cannot be read.
        """
        folder = resolve(Path(path))
        held = acquire(folder) if folder.parent.name == VERSIONS else None
        bundle = load_bundle(folder, verify=verify, index=own_index)
        record = bundle.manifest.index
        index: ItemIndex = (
            open_index(bundle.index_file, record.engine, record.kind, record.params, bundle.item_vectors, threads)
            if own_index
            else ExactIndex.build(bundle.item_vectors)
        )
        checks = bundle.checks() if own_index else None
        if checks is not None and record.checks is not None:
            recheck(index, Checks(*checks), record.checks.found, bundle.index_file or bundle.folder)
        followed = root if root is not None else None if folder == Path(path) else Path(path)
        journal = None if followed is None else ChangeLog(followed / JOURNAL)
        items = Catalog(bundle, index, journal, pause)
        known = UserProfiles.of(bundle.users_file, users, followed, bundle.encoder, bundle.manifest.data_hash)
        loaded = cls(bundle, index, known, items)
        loaded._held = held
        return loaded

    def close(self) -> None:
        """Free the connections to the stored users and to the journal; the recommender answers no more."""
        self.users.close()
        self.items.close()
        if self._held is not None:
            self._held.close()

    def recommend(self, request: Request, *, exact: bool = False, surely: bool = False) -> Recommendations:
        """Answer one request.

        Args:
            request: what is asked.
            exact: search exhaustively, whatever the kind of index, to measure how much an index finds.
            surely: deprecated alias of `exact`.

        Raises:
            RequestError: n is out of range, a column is not known, a value is not what its field reads, or the filter is
                none or does not fit the catalogue.
        """
        catalogue, now = self.items.current(), datetime.datetime.now(datetime.UTC)
        self._check(request, catalogue, now)
        prepared = self._preparation.prepare(request, catalogue)
        within, excluded = self.eligibility.limits(request, catalogue, prepared.allowed, prepared.excluded, now)
        if request.shaped:
            found = shape(request, prepared.vector, excluded, within, catalogue, self._facets)
        else:
            hits = catalogue.search(prepared.vector[None], request.n, (excluded,), (within,), exact=exact or surely)
            found = RankedList(*hits.ranked(0))
        return self._answer(request, prepared, catalogue, found)

    def recommend_batch(self, requests: Sequence[Request]) -> list[Recommendations]:
        """Answer many requests, each as `recommend` would, with one search for all that ask for the same n.

        Raises:
            RequestError: for the first request that cannot be answered; none is.
        """
        answers = self.recommend_each(requests)
        for answer in answers:
            if isinstance(answer, RequestError):
                raise answer
        return cast(list[Recommendations], answers)

    def recommend_each(
        self, requests: Sequence[Request], catalogue: CatalogSnapshot | None = None
    ) -> list[Recommendations | RequestError]:
        """As `recommend_batch`, with the error of each request that cannot be answered in its place.

        Args:
            requests: any number.
            catalogue: from `items`, to answer several calls from one moment; the items as they are now when left out.
        """
        at = catalogue if catalogue is not None else self.items.current()
        return self._each(requests, at, datetime.datetime.now(datetime.UTC))

    def explain(self, request: Request, item_id: str, *, values: bool = False) -> Explanation:
        """How an item of the catalogue comes to its score for one request, whether or not it would be listed.

        The score is the model's, with the request's boosts; filters, rules and channels play no part in it.

        Args:
            request: as for `recommend`.
            item_id: the item.
            values: tell what single values bring too, and not only what fields do.

        Raises:
            RequestError: as `recommend`, or the catalogue lacks the item.
        """
        catalogue = self.items.current()
        self._facets.check_boosts(catalogue, request.boosts)
        prepared = self._preparation.prepare(request, catalogue)
        return self._explainer.explain(request, prepared, catalogue, row_of(catalogue, item_id), values=values)

    def why_not(self, request: Request, item_id: str) -> Absence:
        """Where an item of the catalogue stands for one request, and what keeps it out of the answer.

        Raises:
            RequestError: as `recommend`, or the catalogue lacks the item.
        """
        catalogue = self.items.current()
        self._check(request, catalogue, datetime.datetime.now(datetime.UTC))
        return self._absences.of(request, catalogue, item_id)

    def similar(self, item_id: str, request: Request | None = None) -> Similar:
        """The items that are most like an item of the catalogue, surely the right ones.

        Args:
            item_id: the item.
            request: how many are wanted, and which may be returned: its `n`, `exclude`, `filter` and `allow`.

        Raises:
            RequestError: the catalogue lacks the item, or the filter is none or does not fit the catalogue.
        """
        catalogue = self.items.current()
        return self._similarity.similar(request if request is not None else Request(), catalogue, row_of(catalogue, item_id))

    def score(self, request: Request, item_ids: Sequence[str]) -> Scores:
        """Score items that are given as `recommend` would list them: with the request's dial and boosts, leaving none out.

        Raises:
            RequestError: as `recommend`.
        """
        catalogue = self.items.current()
        self._facets.check_boosts(catalogue, request.boosts)
        return self._scorer.score(request, item_ids, catalogue)

    def user_vector(self, request: Request) -> UserVector:
        """What one request is searched with. Raises RequestError as `recommend`."""
        return self._scorer.user_vector(request, self.items.current())

    def item(self, item_id: str) -> Page:
        """One item as a page of its own, empty where the catalogue lacks it. Raises RequestError, BundleError."""
        check_id(item_id, "/item_id")
        return self._listing.one(self.items.current(), item_id)

    def list_items(self, count: int = 100, after: str | None = None) -> Page:
        """The first items of the catalogue in order of their ids, of all or of those after an id. Raises BundleError."""
        return self._listing.page(self.items.current(), count, after)

    def predict(self, pairs: Sequence[tuple[Request, str]]) -> list[Prediction]:
        """Score items that are given, for ranking them or for their probabilities. Nothing is searched or left out.

        Args:
            pairs: a request and an item's id each; a request that stands in many pairs is encoded once.

        Raises:
            RequestError: an item is not in the catalogue, or a request cannot be answered or turns the popularity dial.
        """
        return self._scorer.predict(pairs, self.items.current())

    def encode(self, requests: Sequence[Request]) -> SparseRows:
        """Each request as one row in the user feature space: [len(requests)], at least one. Raises RequestError."""
        catalogue = self.items.current()
        return SparseRows.vstack([one.encoded.rows for one in self._preparation.prepare_all(requests, catalogue)])

    def user_vectors(self, requests: Sequence[Request]) -> Float32:
        """What each request is searched with: float32 [len(requests), dim]. Raises RequestError."""
        catalogue = self.items.current()
        return np.stack([one.vector for one in self._preparation.prepare_all(requests, catalogue)])

    def _each(
        self, requests: Sequence[Request], catalogue: CatalogSnapshot, now: datetime.datetime
    ) -> list[Recommendations | RequestError]:
        answers: dict[int, Recommendations | RequestError] = {}
        by_n: dict[int, list[tuple[int, Query, SegmentMasks | None, Int64]]] = {}
        for position, request in enumerate(requests):
            try:
                self._check(request, catalogue, now)
            except RequestError as error:
                answers[position] = error
        fit = [position for position in range(len(requests)) if position not in answers]
        prepared = self._preparation.prepare_each([requests[position] for position in fit], catalogue)
        for position, one in zip(fit, prepared, strict=True):
            request = requests[position]
            try:
                if isinstance(one, RequestError):
                    raise one
                scope, excluded = self.eligibility.limits(request, catalogue, one.allowed, one.excluded, now)
                if request.shaped:
                    found = shape(request, one.vector, excluded, scope, catalogue, self._facets)
                    answers[position] = self._answer(request, one, catalogue, found)
                else:
                    by_n.setdefault(request.n, []).append((position, one, scope, excluded))
            except RequestError as error:
                answers[position] = error
        for n, members in sorted(by_n.items()):
            positions, ready, scopes, exclusions = zip(*members, strict=True)
            try:
                hits = catalogue.search(np.stack([one.vector for one in ready]), n, exclusions, scopes)
            except RequestError as error:  # a vector is not finite: whose?
                alone = [error] if len(members) == 1 else (self._each([requests[at]], catalogue, now)[0] for at in positions)
                answers |= zip(positions, alone, strict=True)
                continue
            for place, (position, one, _, _) in enumerate(members):
                answers[position] = self._answer(requests[position], one, catalogue, RankedList(*hits.ranked(place)))
        return [answers[position] for position in range(len(requests))]

    def _check(self, request: Request, catalogue: CatalogSnapshot, now: datetime.datetime) -> None:
        """Check all that needs no user, so that a bad request costs no read. Raises RequestError."""
        if request.shaped or request.filter is not None:
            check_request(request)
            self.eligibility.check(request, now)
            if request.shaped:
                check_shaping(request, catalogue, self._facets)

    def _answer(self, request: Request, prepared: Query, catalogue: CatalogSnapshot, found: RankedList) -> Recommendations:
        told = self._explainer.contributions(request, prepared, catalogue, found.rows) if request.explain else ()
        return Recommendations(
            ids=tuple(catalogue.ids(found.rows)),
            scores=tuple(found.scores.tolist()),
            user=prepared.user,
            unknown=prepared.encoded.unknown,
            warnings=prepared.warnings + found.warnings,
            exact=found.exact,
            bundle=self._version,
            sequence=catalogue.sequence,
            user_offset=prepared.offset,
            degraded=prepared.degraded + catalogue.degraded,
            sources=None if found.sources is None else tuple(found.sources),
            contributions=tuple(told),
        )
