"""Data of a report on one bundle, such as a map of its items."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from recall._arrays import Float64
from recall.bundle.manifest import Manifest
from recall.evaluation.bootstrap import Comparison
from recall.evaluation.evaluate import EvaluationReport
from recall.evaluation.html.charts import SERIES, Heading
from recall.models.serving.layout import field_parts
from recall.serving.batch import title_column
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.store.items.snapshot import CatalogSnapshot

_ITEMS = 1_500  # points of a map: more are a blot
PAIRS = 300
"""Pairs of user and item whose contributions are sampled."""
_TIMED = 300  # requests that latency is measured with
_GROUPS = 4  # values of a column with separate colours

Points = Mapping[str, Mapping[str, tuple[float, float, str]]]


@dataclass(frozen=True, slots=True)
class Subject:
    """Data that a report shows of one bundle.

    Attributes:
        manifest: of the bundle.
        evaluation: on held-out interactions; None if it is missing.
        map: two principal components and the title of items, by the value of a column and by id; the most popular first.
        explained: share of the variance of item vectors that they have.
        column: that column; empty for none.
        pairs: strength of each pair of fields: the standard deviation of what it adds to a score.
        milliseconds: float64 [n], of single requests; n is 0 if none was timed.
    """

    manifest: Manifest
    evaluation: EvaluationReport | None
    map: Points
    explained: float
    column: str
    pairs: Mapping[str, float]
    milliseconds: Float64

    @classmethod
    def of(cls, recommender: Recommender, evaluation: EvaluationReport | None = None, *, timed: bool = True) -> "Subject":
        """Collect what a report shows of a bundle.

        Args:
            recommender: of the bundle.
            evaluation: of the bundle.
            timed: whether to measure latency, which takes some hundred requests.
        """
        found, explained, column = _item_map(recommender)
        return cls(
            recommender.bundle.manifest,
            evaluation,
            found,
            explained,
            column,
            _pair_strengths(recommender),
            _latencies(recommender) if timed else np.zeros(0),
        )

    def within(self, catalogue: CatalogSnapshot) -> "Subject":
        """Drop items from the map that a catalogue lacks.

        Args:
            catalogue: current catalogue of the bundle.
        """
        left = {}
        for name, group in self.map.items():
            rows = catalogue.rows([*group]).tolist()
            left[name] = {id_: point for (id_, point), row in zip(group.items(), rows, strict=True) if row >= 0}
        return replace(self, map={name: group for name, group in left.items() if group})


def _item_map(recommender: Recommender) -> tuple[Points, float, str]:
    """Return two principal components of items, by the values of a column."""
    bundle = recommender.bundle
    counts = bundle.counts()
    order = np.arange(len(bundle.item_ids)) if counts is None else np.argsort(-counts, kind="stable")
    rows = order[:_ITEMS].astype(np.int64)
    vectors = np.asarray(bundle.item_vectors[rows], dtype=np.float64)[:, bundle.tables.taste]
    centred = vectors - vectors.mean(axis=0)
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    places = centred @ directions[:2].T
    places = np.pad(places, ((0, 0), (0, 2 - places.shape[1])))
    items, key = bundle.some_items(rows), bundle.encoder.schema.item_id
    titled = title_column(items, key) or key
    names = [str(title) if title is not None else str(id_) for title, id_ in zip(items[titled], items[key], strict=True)]
    column = _grouping(items, {key, titled})
    labels = items[column].cast(pl.String).fill_null("") if column else pl.Series([""] * len(items))
    most = labels.filter(labels != "").value_counts(sort=True).to_series()[:_GROUPS].to_list()
    groups: dict[str, dict[str, tuple[float, float, str]]] = {name: {} for name in ("", *most)}
    for id_, label, place, name in zip(bundle.item_ids.ids(rows), labels, places.tolist(), names, strict=True):
        groups[label if label in most else ""][id_] = (place[0], place[1], name)
    spread = float((values**2).sum())
    share = float((values[:2] ** 2).sum()) / spread if spread else 0.0
    return {name: group for name, group in groups.items() if group}, share, column


def _grouping(items: pl.DataFrame, other_than: set[str]) -> str:
    """Return the column of text with the fewest values, at least two; or ''."""
    counts = {one.name: one.n_unique() for one in items if one.dtype == pl.String and one.name not in other_than}
    fitting = {name: count for name, count in counts.items() if 2 <= count <= max(2 * _GROUPS, len(items) // 5)}
    return min(fitting, key=lambda name: fitting[name], default="")


def _pair_strengths(recommender: Recommender) -> dict[str, float]:
    bundle, rng = recommender.bundle, np.random.default_rng(0)
    encoder = bundle.encoder
    stored = recommender.users.without_changes()  # they may have values that this model cannot read
    found = ((user_id, stored.get(user_id)) for user_id in stored.sample(PAIRS, 0))
    users = [record.encoded(encoder, user_id) for user_id, record in found if record is not None]
    rows = rng.integers(0, len(bundle.item_ids), PAIRS)
    items = encoder.encode_items(bundle.some_items(rows.astype(np.int64)))
    parts: dict[str, list[float]] = {}
    for number in range(PAIRS):
        user = users[number % len(users)] if users else encoder.encode_user({}).rows
        drawn = items.take(np.array([number]))
        gains = field_parts(bundle.tables, user, drawn, encoder.user_fields, encoder.item_fields)
        for name, row in zip(encoder.user_fields.names, gains.across.tolist(), strict=True):
            for item, value in zip(encoder.item_fields.names, row, strict=True):
                parts.setdefault(f"{name} × {item}", []).append(value)
        own = gains.first + gains.second.sum(axis=0)
        for item, value in zip(encoder.item_fields.names, own.tolist(), strict=True):
            parts.setdefault(f"{item} alone", []).append(value)
    strengths = {name: float(np.std(values)) for name, values in parts.items()}
    return {name: strengths[name] for name in sorted(strengths, key=lambda name: -strengths[name]) if strengths[name] > 0}


def _latencies(recommender: Recommender) -> Float64:
    users: list[str | None] = [*recommender.users.sample(_TIMED, 0)] or [None] * _TIMED
    asked = [Request(user, n=10) for user in users]
    for one in asked[:20]:  # the first ones fill caches
        recommender.recommend(one)
    seconds = []
    for one in asked:
        began = time.perf_counter()
        recommender.recommend(one)
        seconds.append(time.perf_counter() - began)
    return np.sort(np.array(seconds)) * 1e3


_NOT_EVALUATED = "No evaluation is given: recall evaluate CONFIG BUNDLE --report FILE has it."


class MissingDataError(Exception):
    """A section has no data; the message says why."""


def evaluated(subject: Subject) -> EvaluationReport:
    """Return the evaluation of a bundle. Raises MissingDataError if it is missing."""
    if subject.evaluation is None:
        raise MissingDataError(_NOT_EVALUATED)
    return subject.evaluation


@dataclass(frozen=True, slots=True)
class Subjects:
    """The bundles of a report.

    Attributes:
        subjects: one bundle, or two.
        differences: of the first from the second by metric, over the same requests; empty for one bundle.
    """

    subjects: Sequence[Subject]
    differences: Mapping[str, Comparison]

    @property
    def several(self) -> bool:
        """Whether there are two."""
        return len(self.subjects) > 1

    def name(self, subject: Subject) -> str:
        """Return the name in legends."""
        return subject.manifest.version if self.several else "model"

    def heading(self, of: Subject) -> Iterator[Heading]:
        """Yield the heading of the sections of one bundle, if there are two."""
        if self.several:
            yield Heading(of.manifest.version)

    def judged(self) -> list[tuple[str, str, EvaluationReport]]:
        """Return name, colour and evaluation of each bundle that has one, at least one."""
        found = [
            (self.name(one), colour, one.evaluation)
            for one, colour in zip(self.subjects, SERIES, strict=False)
            if one.evaluation is not None
        ]
        if not found:
            raise MissingDataError(_NOT_EVALUATED)
        return found
