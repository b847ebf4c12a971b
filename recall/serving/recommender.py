"""Recommender: encode requests, search with their vectors, return ids. No torch."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np

from recall._arrays import Float32, Int64
from recall._file_system import VersionLock, acquire
from recall._ids import check_id
from recall.bundle.manifest import Manifest
from recall.bundle.reader import Bundle, load_bundle
from recall.bundle.versions import VERSIONS, resolve
from recall.errors import RequestError
from recall.features.csr import SparseRows
from recall.index.base import ItemIndex
from recall.index.checks import Checks, recheck
from recall.index.flat import ExactIndex
from recall.index.registry import open_index
from recall.serving.explain import Explainer
from recall.serving.filters.columns import MANY, FilterResolver
from recall.serving.query import Query, QueryBuilder, all_of, check_request, needs_reranking, outcome
from recall.serving.request import Absence, Explanation, Page, Prediction, Recommendations, Request, Scores, Similar, UserVector
from recall.serving.rerank.item_columns import ItemColumns
from recall.serving.rerank.pipeline import RankedList, check_reranking, rerank
from recall.serving.scoring import Scorer, because_rows, with_fields
from recall.store.items.catalog import PAUSE, Catalog
from recall.store.items.log import open_log
from recall.store.items.snapshot import CatalogSnapshot, SegmentMasks, row_of
from recall.store.users.bundle_users import SqliteUsers
from recall.store.users.changes import LiveUsers
from recall.store.users.profiles import UserProfiles
from recall.store.users.sqlite import USERS_LIVE, SqliteLiveUsers


class Recommender:
    """A bundle with its index, users and live changes. Thread-safe.

    Attributes:
        bundle: the published bundle; it never changes.
        index: index of the vectors of its items.
        users: stored users, with their live changes.
        items: the catalogue, with its live changes. Each answer comes from one snapshot of it.
        eligibility: resolves filters.
    """

    def __init__(self, bundle: Bundle, index: ItemIndex, users: UserProfiles, items: Catalog | None = None) -> None:
        """Combine the parts of one bundle; `Recommender.load` loads them from its folder."""
        self.bundle = bundle
        self.index = index
        self.users = users
        self.items = items if items is not None else Catalog(bundle, index)
        self.eligibility = FilterResolver(bundle)
        self._query_builder = QueryBuilder(bundle, users)
        self._columns = ItemColumns(bundle)
        self._explainer = Explainer(bundle, self._query_builder, self._columns, self.eligibility)
        self._scorer = Scorer(bundle, self._query_builder, self._columns, self.eligibility)
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
        log: str | None = None,
    ) -> "Recommender":
        """Open a bundle and everything in it.

        Args:
            path: the folder of a bundle, or the root of published versions, whose live changes of items are then applied: those
                of `items.upsert` and `items.delete`, and those of other processes.
            verify: check every file's SHA-256 and every number; see `load_bundle`.
            threads: threads of one search; 1 suits a server, which answers many requests at once.
            root: root whose live changes are applied, if `path` is the folder of one of its versions.
            pause: seconds between two polls for changes of other processes; None to poll only in `items.refresh`.
            users: store of changes of users: "own" for the file in the root, None to ignore changes, or a store that the
                caller closes.
            log: location of the change log of items, as for `open_log`.
            own_index: open the bundle's index. If False, the index file is not read and searches are exact, for the build of
                another index.

        Raises:
            BundleError: The bundle is missing, damaged or of a newer format.
            IndexFileError: The index does not fit the vectors, or fails its stored checks.
            JournalError: The live changes cannot be read.
            StoreError: The users of the bundle are to be read from `users`, which does not have all of them.
        """
        folder = resolve(Path(path))
        held = acquire(folder) if folder.parent.name == VERSIONS else None
        stored = None if users is None or users == "own" else users.exported(Manifest.read(folder))
        bundle = load_bundle(folder, verify=verify, index=own_index, users=stored is None)
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
        journal = None if followed is None else open_log(followed, log)
        items = Catalog(bundle, index, journal, pause)
        stored = SqliteUsers(bundle.users_file) if stored is None else stored
        own = SqliteLiveUsers(followed / USERS_LIVE) if users == "own" and followed is not None else None
        live = own if users == "own" else users
        known = UserProfiles(stored, live, bundle.encoder, bundle.manifest.data_hash, owned=own is not None)
        loaded = cls(bundle, index, known, items)
        loaded._held = held
        return loaded

    def close(self) -> None:
        """Close the users, the log and the index; the recommender cannot answer any more."""
        self.users.close()
        self.items.close()
        self.index.close()
        if self._held is not None:
            self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def recommend(self, request: Request, *, exact: bool = False, surely: bool = False) -> Recommendations:
        """Answer one request.

        Args:
            request: any request.
            exact: search exhaustively, regardless of the kind of index, to measure an index's recall.
            surely: deprecated alias of `exact`.

        Raises:
            RequestError: n is out of range, a column is unknown, a field cannot read a value, or the filter is malformed.
        """
        catalogue, now = self.items.current(), datetime.datetime.now(datetime.UTC)
        self._check(request, catalogue, now)
        query = self._query_builder.build(request, catalogue)
        within, excluded = self._bounds(request, catalogue, query, now)
        if needs_reranking(request):
            found = rerank(request, query.vector, excluded, within, catalogue, self._columns)
        else:
            found = RankedList(*catalogue.search_one(query.vector, request.n, excluded, within, exact=exact or surely))
        return self._answer(request, query, catalogue, found, (within, excluded))

    def recommend_batch(self, requests: Sequence[Request]) -> list[Recommendations]:
        """Answer many requests as `recommend` would, with one search for each n.

        Raises:
            RequestError: A request cannot be answered; the error is that of the first one.
        """
        return all_of(self.recommend_each(requests))

    def recommend_each(
        self, requests: Sequence[Request], catalogue: CatalogSnapshot | None = None
    ) -> list[Recommendations | RequestError]:
        """Answer many requests; for one that cannot be answered, return its error instead.

        Args:
            requests: any number.
            catalogue: snapshot from `items`, for several calls that need the same one; default: the current snapshot.
        """
        now = datetime.datetime.now(datetime.UTC)
        catalogue = catalogue if catalogue is not None else self.items.current()
        answers: dict[int, Recommendations | RequestError] = {}
        by_n: dict[int, list[tuple[int, Query, SegmentMasks | None, Int64]]] = {}
        errors = [outcome(self._check, request, catalogue, now) for request in requests]
        answers |= {position: error for position, error in enumerate(errors) if error is not None}
        valid = [position for position, error in enumerate(errors) if error is None]
        queries = self._query_builder.build_each([requests[position] for position in valid], catalogue)
        for position, one in zip(valid, queries, strict=True):
            request = requests[position]
            try:
                if isinstance(one, RequestError):
                    raise one
                scope, excluded = self._bounds(request, catalogue, one, now)
                if needs_reranking(request):
                    found = rerank(request, one.vector, excluded, scope, catalogue, self._columns)
                    answers[position] = self._answer(request, one, catalogue, found, (scope, excluded))
                else:
                    by_n.setdefault(request.n, []).append((position, one, scope, excluded))
            except RequestError as error:
                answers[position] = error
        for n, members in sorted(by_n.items()):
            positions, ready, scopes, exclusions = zip(*members, strict=True)
            try:
                lists = catalogue.search(np.stack([one.vector for one in ready]), n, exclusions, scopes)
            except RequestError as error:  # one of the vectors is not finite: search with each
                for at in positions:
                    answers[at] = error if len(members) == 1 else self.recommend_each([requests[at]], catalogue)[0]
                continue
            for ranked, (position, one, scope, excluded) in zip(lists, members, strict=True):
                found = RankedList(*ranked)
                answers[position] = self._answer(requests[position], one, catalogue, found, (scope, excluded))
        return [answers[position] for position in range(len(requests))]

    def explain(self, request: Request, item_id: str, *, values: bool = False) -> Explanation:
        """Explain the score of an item for a request, whether or not it would be listed.

        The score is the model's, with the request's boosts; filters, rules and channels do not affect it.

        Args:
            request: as for `recommend`.
            item_id: the item.
            values: also return the contributions of single values, besides those of fields.

        Raises:
            RequestError: As for `recommend`, or the item is unknown.
        """
        catalogue = self.items.current()
        self._columns.check_boosts(catalogue, request.boosts)
        query = self._query_builder.build(request, catalogue)
        return self._explainer.explain(request, query, catalogue, row_of(catalogue, item_id), values=values)

    def why_not(self, request: Request, item_id: str) -> Absence:
        """Return the rank of an item for a request, and the reasons why it is not listed.

        Args:
            request: as for `recommend`.
            item_id: the item.

        Raises:
            RequestError: As for `recommend`, or the item is unknown.
        """
        catalogue = self.items.current()
        self._check(request, catalogue, datetime.datetime.now(datetime.UTC))
        return self._explainer.absence(request, catalogue, item_id)

    def similar(self, item_id: str, request: Request | None = None) -> Similar:
        """Return the items most similar to an item, by an exact search.

        Args:
            item_id: the item.
            request: its `n`, `exclude`, `filter`, `allow` and `fields` apply.

        Raises:
            RequestError: The item is unknown, or the filter is malformed.
        """
        catalogue, request = self.items.current(), request if request is not None else Request()
        self._columns.check_fields(request.fields)
        found = self._scorer.similar(request, catalogue, row_of(catalogue, item_id))
        return with_fields(found, request, catalogue, self._columns)

    def score(self, request: Request, item_ids: Sequence[str]) -> Scores:
        """Score given items with the request's popularity and boosts, without filtering.

        Args:
            request: as for `recommend`.
            item_ids: the items; the answer lists those that the catalogue lacks.

        Raises:
            RequestError: As for `recommend`.
        """
        catalogue = self.items.current()
        self._columns.check_boosts(catalogue, request.boosts)
        self._columns.check_fields(request.fields)
        found = self._scorer.score(request, item_ids, catalogue)
        return with_fields(found, request, catalogue, self._columns)

    def user_vector(self, request: Request) -> UserVector:
        """Return the query vector of a request. Raises RequestError as `recommend`."""
        return self._scorer.user_vector(request, self.items.current())

    def item(self, item_id: str) -> Page:
        """Return one item as a page, which is empty if the catalogue lacks it.

        Raises:
            RequestError: The id is malformed.
            BundleError: The items cannot be read.
        """
        check_id(item_id, "/item_id")
        catalogue = self.items.current()
        return Page.of(catalogue, [item_id] if catalogue.rows([item_id])[0] >= 0 else [])

    def list_items(self, count: int = 100, after: str | None = None) -> Page:
        """Return the first items of the catalogue, sorted by id.

        Args:
            count: maximum number.
            after: exclusive lower bound of the ids; None for none.

        Raises:
            BundleError: The items cannot be read.
        """
        catalogue = self.items.current()
        found = catalogue.ids_after(after, count + 1)
        return Page.of(catalogue, found[:count], found[count - 1] if len(found) > count else None)

    def predict(self, pairs: Sequence[tuple[Request, str]]) -> list[Prediction]:
        """Score pairs of request and item, with probabilities if the model has them.

        Args:
            pairs: request and item id; a request object that is in several pairs is encoded once.

        Raises:
            RequestError: An item is unknown, a request cannot be answered, or its `popularity` is not 1.
        """
        return self._scorer.predict(pairs, self.items.current())

    def encode(self, requests: Sequence[Request]) -> SparseRows:
        """Encode requests, at least one, in the user feature space: [len(requests)].

        Raises:
            RequestError: A request cannot be answered.
        """
        catalogue = self.items.current()
        return SparseRows.vstack([one.encoded.rows for one in self._query_builder.build_all(requests, catalogue)])

    def user_vectors(self, requests: Sequence[Request]) -> Float32:
        """Return the query vectors of requests: float32 [len(requests), dim].

        Raises:
            RequestError: A request cannot be answered.
        """
        catalogue = self.items.current()
        return np.stack([one.vector for one in self._query_builder.build_all(requests, catalogue)])

    def _bounds(
        self, request: Request, catalogue: CatalogSnapshot, query: Query, now: datetime.datetime
    ) -> tuple[SegmentMasks | None, Int64]:
        """Return the masks to search within, None for all rows, and the excluded rows."""
        if request.filter is None and query.allowed is None and len(query.excluded) <= MANY:
            return None, query.excluded
        return self.eligibility.resolve(request, catalogue, query.allowed, query.excluded, now)

    def _check(self, request: Request, catalogue: CatalogSnapshot, now: datetime.datetime) -> None:
        """Check all parts of a request that can be checked without its user."""
        if request.fields:
            self._columns.check_fields(request.fields)
        if needs_reranking(request) or request.filter is not None:
            check_request(request)
            self.eligibility.check(request, now)
            if needs_reranking(request):
                check_reranking(request, catalogue, self._columns)

    def _answer(
        self,
        request: Request,
        query: Query,
        catalogue: CatalogSnapshot,
        found: RankedList,
        bounds: tuple[SegmentMasks | None, Int64],
    ) -> Recommendations:
        contributions = self._explainer.contributions(request, query, catalogue, found.rows) if request.explain else ()
        return Recommendations(
            ids=tuple(catalogue.ids(found.rows)),
            scores=tuple(found.scores.tolist()),
            user=query.user,
            unknown=query.encoded.unknown,
            warnings=query.warnings + found.warnings,
            exact=found.exact,
            bundle=self._version,
            sequence=catalogue.sequence,
            user_offset=query.offset,
            degraded=query.degraded + catalogue.degraded,
            sources=None if found.sources is None else tuple(found.sources),
            contributions=tuple(contributions),
            fields=tuple(self._columns.values(catalogue, found.rows, request.fields)) if request.fields else (),
            rows=because_rows(request, query.history, found.rows, catalogue, bounds, self._scorer, self._columns)
            if request.because
            else (),
        )
