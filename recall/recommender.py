"""Answers requests from a published bundle: encode, a weighted sum of rows, a search, and ids again. No torch."""

import datetime
from collections.abc import Sequence
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recall.answer import Degraded, Prediction, Recommendations, ScoredItem
from recall.bundle import files
from recall.bundle.bundle import Bundle, load_bundle
from recall.bundle.holding import Hold, hold
from recall.bundle.publish import VERSIONS, resolve
from recall.eligibility import Eligibility
from recall.errors import RequestError
from recall.explanation import Explanation, contributions
from recall.features.sparse import Float32, SparseRows
from recall.index.checks import Checks, recheck
from recall.index.contract import Hits, ItemIndex
from recall.index.opening import open_index
from recall.live.catalogue import Catalogue
from recall.live.following import PAUSE, LiveCatalogue
from recall.live.journal import JOURNAL, Journal
from recall.preparation import Preparation, Prepared, shown
from recall.request import Request, check_id, check_ids, check_unchanged
from recall.shaping.facets import Facets
from recall.shaping.shape import Shaped, gains_by_name, shape
from recall.stores.known import KnownUsers
from recall.stores.live.contract import LiveUsers

Float64 = npt.NDArray[np.float64]


class Recommender:
    """One bundle, its index, its users, and the live changes of its items. Safe to share among threads.

    Attributes:
        bundle: what was published; it never changes.
        index: over the vectors of its items.
        users: those who are known, with what has changed of them.
        items: the catalogue with its live changes. An answer comes from the catalogue as it was at one moment.
        eligibility: what requests may filter by.
    """

    def __init__(self, bundle: Bundle, index: ItemIndex, users: KnownUsers, items: LiveCatalogue | None = None) -> None:
        """Join the parts of one bundle; `Recommender.load` does so from its folder."""
        self.bundle = bundle
        self.index = index
        self.users = users
        self.items = items if items is not None else LiveCatalogue(bundle, index)
        self.eligibility = Eligibility(bundle)
        self._preparation = Preparation(bundle, users)
        self._facets = Facets(bundle)
        self._version = bundle.manifest.version
        self._held: Hold | None = None

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        verify: bool = True,
        threads: int = 1,
        root: Path | None = None,
        pause: float | None = PAUSE,
        users: LiveUsers | None = None,
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
            users: what changes of users, which stays the caller's to close; the root's own file when left out.

        Raises:
            BundleError: the bundle is missing, damaged or of a newer format.
            IndexFileError: the index does not fit the vectors, or fails the checks that were stored with it.
            JournalError: the live changes cannot be read.
        """
        folder = resolve(Path(path))
        held = hold(folder) if folder.parent.name == VERSIONS else None
        bundle = load_bundle(folder, verify=verify)
        record = bundle.manifest.index
        index = open_index(bundle.folder / files.INDEX, record.kind, record.params, bundle.item_vectors, threads)
        checks = bundle.checks()
        if checks is not None and record.checks is not None:
            recheck(index, Checks(*checks), record.checks.found, bundle.folder / files.INDEX)
        followed = root if root is not None else None if folder == Path(path) else Path(path)
        journal = None if followed is None else Journal(followed / JOURNAL)
        items = LiveCatalogue(bundle, index, journal, pause)
        known = KnownUsers.of(bundle.folder / files.USERS, users, followed, bundle.encoder, bundle.manifest.data_hash)
        loaded = cls(bundle, index, known, items)
        loaded._held = held
        return loaded

    def close(self) -> None:
        """Free the connections to the stored users and to the journal; the recommender answers no more."""
        self.users.close()
        self.items.close()
        if self._held is not None:
            self._held.close()

    def recommend(self, request: Request) -> Recommendations:
        """Answer one request.

        Raises:
            RequestError: n is out of range, a column is not known, a value is not what its field reads, or the filter is
                none or does not fit the catalogue.
        """
        return self.recommend_batch([request])[0]

    def recommend_batch(self, requests: Sequence[Request]) -> list[Recommendations]:
        """Answer many requests, each as `recommend` would, with one search for all that ask for the same n.

        Raises:
            RequestError: for the first request that cannot be answered; none is.
        """
        catalogue, now = self.items.current(), datetime.datetime.now(datetime.UTC)
        prepared = self._preparation.prepare_all(requests, catalogue)
        limits = [
            self.eligibility.limits(request, catalogue, one.allowed, one.excluded, now)
            for request, one in zip(requests, prepared, strict=True)
        ]
        answers: dict[int, Recommendations] = {}
        for position, request in enumerate(requests):
            if request.shaped:
                within, excluded = limits[position]
                found = shape(request, prepared[position].vector, excluded, within, catalogue, self._facets)
                answers[position] = self._answer(prepared[position], catalogue, found)
        plain = [position for position in range(len(requests)) if position not in answers]
        for n in sorted({requests[position].n for position in plain}):
            members = [position for position in plain if requests[position].n == n]
            vectors = np.stack([prepared[position].vector for position in members])
            scopes, exclusions = zip(*(limits[position] for position in members), strict=True)
            hits = catalogue.search(vectors, n, exclusions, scopes)
            for place, position in enumerate(members):
                answers[position] = self._answer(prepared[position], catalogue, _plain(hits, place))
        return [answers[position] for position in range(len(requests))]

    def explain(self, request: Request, item_id: str) -> Explanation:
        """How an item of the catalogue comes to its score for one request, whether or not it would be listed.

        The score is the model's, with the request's boosts; filters, rules and channels play no part in it.

        Raises:
            RequestError: as `recommend`, or the catalogue lacks the item.
        """
        catalogue = self.items.current()
        prepared = self._preparation.prepare(request, catalogue)
        check_id(item_id, "/item_id")
        row = int(catalogue.rows([item_id])[0])
        if row < 0:
            raise RequestError(f"item {item_id!r} is not in the catalogue", where="/item_id")
        bundle, encoder = self.bundle, self.bundle.encoder
        gains = gains_by_name(request, catalogue, self._facets, row)
        parts = bundle.tables.explain(prepared.encoded.rows, encoder.encode_items(catalogue.item(row)))
        return Explanation(
            item_id=item_id,
            score=float(prepared.vector @ catalogue.vectors(np.array([row]))[0]) + sum(gains.values()),
            contributions=contributions(parts, encoder.user_fields, encoder.item_fields, request.popularity, gains),
            user_offset=float(bundle.tables.user_offset(prepared.encoded.rows)[0]),
            bundle=self._version,
        )

    def predict(self, pairs: Sequence[tuple[Request, str]]) -> list[Prediction]:
        """Score items that are given, for ranking them or for their probabilities. Nothing is searched or left out.

        Args:
            pairs: a request and an item's id each; a request that stands in many pairs is encoded once.

        Raises:
            RequestError: an item is not in the catalogue, or a request cannot be answered or turns the popularity dial.
        """
        ids = [item_id for _, item_id in pairs]
        check_ids(ids, "/item_id")
        catalogue = self.items.current()
        items = catalogue.rows(ids)
        if (items < 0).any():
            strangers = list(dict.fromkeys(ids[at] for at in np.flatnonzero(items < 0).tolist()))
            raise RequestError(
                f"{len(strangers)} items are not in the catalogue: {shown(strangers)}",
                mend="Leave them out, or add them with their features",
            )
        requests = {id(request): request for request, _ in pairs}
        prepared = self._preparation.prepare_all(list(requests.values()), catalogue)
        for request in requests.values():
            check_unchanged(request)
        if not prepared:
            return []
        place = {key: row for row, key in enumerate(requests)}
        of = np.array([place[id(request)] for request, _ in pairs])
        rows = SparseRows.below([one.encoded.rows for one in prepared])
        tables = self.bundle.tables
        products = np.einsum("ij,ij->i", tables.user_vectors(rows)[of], catalogue.vectors(items))
        scores = products + tables.user_offset(rows)[of]
        if self.bundle.manifest.objective != "logistic":
            return [Prediction(score, None) for score in scores.tolist()]
        return list(map(Prediction, scores.tolist(), logistic(scores).tolist()))

    def encode(self, requests: Sequence[Request]) -> SparseRows:
        """Each request as one row in the user feature space: [len(requests)], at least one. Raises RequestError."""
        catalogue = self.items.current()
        return SparseRows.below([one.encoded.rows for one in self._preparation.prepare_all(requests, catalogue)])

    def user_vectors(self, requests: Sequence[Request]) -> Float32:
        """What each request is searched with: float32 [len(requests), dim]. Raises RequestError."""
        catalogue = self.items.current()
        return np.stack([one.vector for one in self._preparation.prepare_all(requests, catalogue)])

    def _answer(self, prepared: Prepared, catalogue: Catalogue, found: Shaped) -> Recommendations:
        items = zip(catalogue.ids(found.rows), found.scores.tolist(), found.sources or repeat(None))  # noqa: B905
        return Recommendations(
            items=tuple(map(ScoredItem._make, items)),
            user=prepared.user,
            unknown=prepared.encoded.unknown,
            warnings=prepared.warnings + found.warnings,
            exact=found.exact,
            bundle=self._version,
            sequence=catalogue.sequence,
            user_offset=float(self.bundle.tables.user_offset(prepared.encoded.rows)[0]),
            degraded=prepared.degraded + _degraded(catalogue),
        )


def _degraded(catalogue: Catalogue) -> tuple[Degraded, ...]:
    trouble = catalogue.trouble
    return (Degraded("items", f"later changes of items are not known: {trouble}"),) if trouble else ()


def _plain(hits: Hits, place: int) -> Shaped:
    found = hits.rows[place] >= 0
    return Shaped(hits.rows[place][found], hits.scores[place][found], bool(hits.exact[place]))


def logistic(scores: Float64) -> Float64:
    """1 / (1 + e^-s) of every score, float64 of any shape, without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * scores)), dtype=np.float64)
