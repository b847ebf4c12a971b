"""A published model that answers with frames."""

import html
import os
import shutil
import warnings
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import polars as pl

from recall.config import RunConfig
from recall.config.run import parse_config
from recall.data.combine import append_rows
from recall.data.dataset import Dataset, dataset_of, open_tables
from recall.data.split import TEST, VALID
from recall.data.tables import TABLE_NAMES, Library, as_library, frame_of, open_table, series_of
from recall.errors import ConfigError, DataError
from recall.evaluation.evaluate import EvaluationReport, evaluate
from recall.features.values import canonical_series
from recall.publish.derived import adopt
from recall.serving.batch import Lists
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.serving.rerank.channels import Channels
from recall.serving.rerank.rules import AnyRule

_SHOWN = ("recall", "ndcg")  # metrics of a summary
_PART = "split"  # the column that marks training and test interactions


@dataclass(frozen=True, slots=True)
class Fitted:
    """Record of the run of a fitted model.

    Attributes:
        config: of the run.
        sources: of the three tables, as given.
        dataset: what the model learned from.
        findings: errors and warnings about the tables, one line each.
        draft: the drafted configuration with the reason of each line; empty where a whole one was given.
    """

    config: RunConfig
    sources: Mapping[str, object]
    dataset: Dataset
    findings: tuple[str, ...]
    draft: str


class Model:
    """A published model that answers with frames.

    Frames are of polars, or of pandas where the model was fitted on one; ids have the type that they have in the tables.

    Attributes:
        recommender: the same model for single requests, with all that a `Request` offers.
        config: the run's configuration.
        draft: the drafted configuration as TOML, with the reason of each line; empty where none was drafted.
        findings: errors and warnings about the tables, one line each.
    """

    def __init__(
        self,
        recommender: Recommender,
        *,
        fitted: Fitted | None = None,
        id_types: tuple[pl.DataType, pl.DataType] | None = None,
        library: Library = "polars",
        temporary: Path | None = None,
    ) -> None:
        """Wrap a recommender; `fit` and `load` do so."""
        self.recommender, bundle = recommender, recommender.bundle
        recorded = dict(bundle.manifest.config)
        self.config = fitted.config if fitted is not None else parse_config(recorded, where=str(bundle.folder))
        self.draft = "" if fitted is None else fitted.draft
        self.findings = () if fitted is None else fitted.findings
        self._fitted, self._library = fitted, library
        self._lists = Lists(recommender, id_types)
        if temporary is not None:
            weakref.finalize(self, shutil.rmtree, temporary, ignore_errors=True)

    @property
    def users(self) -> list[Any]:
        """Ids of all known users."""
        return self._lists.everyone().to_list()

    def recommend(
        self,
        users: Any = None,
        n: int = 10,
        *,
        filter: Mapping[str, object] | None = None,  # noqa: A002 - the name that requests have
        rules: Sequence[AnyRule] = (),
        channels: Channels | None = None,
        boosts: Mapping[str, float] | None = None,
        popularity: float = 1.0,
        exclude_seen: bool = True,
    ) -> Any:
        """Recommend items: a row for each user and item, the best first.

        Args:
            users: an id; several; a frame with the column of user ids, and perhaps context and features, which override what
                is stored; None for all known users. A missing id is an anonymous user.
            n: items of each user, fewer only where fewer are eligible.
            filter: condition on the items' columns; see `Request`.
            rules: quotas, pins and diversity; see `Request`.
            channels: lists that are merged with the model's; see `Request`.
            boosts: weights of coordinates of items; see `Request`.
            popularity: weight of the popular part of a score; see `Request`.
            exclude_seen: leave out the user's previous items.

        Returns:
            A frame: the user's id, rank from 1, the item's id, score, and the item's title where there is such a column.

        Raises:
            RequestError: A column, filter or rule is not known.
        """
        template = Request(
            n=n,
            filter=filter,
            rules=rules,
            channels=channels,
            boosts=boosts or {},
            popularity=popularity,
            exclude_seen=exclude_seen,
        )
        asked = self._asked(users, self.recommender.bundle.encoder.schema.user_id)
        answered = self._lists.recommend(asked, template)
        if answered.strangers:
            _warn(f"{answered.strangers:,} of {len(asked):,} users are not known: they are answered as new users")
        for message in answered.warnings:
            _warn(message)
        return as_library(answered.frame, self._library)

    def similar(self, items: Any, n: int = 10) -> Any:
        """Return the items most similar to given ones, a row for each pair.

        Args:
            items: an id, or several.
            n: similar items of each.

        Returns:
            A frame: the given item, rank from 1, the similar item, cosine of their vectors, and the similar item's title.

        Raises:
            RequestError: The catalogue lacks an item.
        """
        key = self.recommender.bundle.encoder.schema.item_id
        asked = self._many(items, f"similar_to_{key}")
        found = [self.recommender.similar(one, Request(n=n)).items for one in canonical_series(asked)]
        frame = self._lists.frame(
            [[one.item_id for one in part] for part in found], [[one.score for one in part] for part in found]
        )
        return as_library(self._lists.shown(frame, asked), self._library)

    def explain(self, user: Any, item: Any) -> Any:
        """Return the contribution of each pair of fields to a score, the largest first.

        Args:
            user: id of a user; None for an anonymous one.
            item: id of an item.

        Returns:
            A frame: field of the user (null for the part that is the same for all users), field of the item, and value;
            the values add up to the score.

        Raises:
            RequestError: The catalogue lacks the item.
        """
        asked = None if user is None else canonical_series(series_of([user], "user"))[0]
        told = self.recommender.explain(Request(user_id=asked), canonical_series(series_of([item], "item"))[0])
        rows = [(one.user_field, " x ".join(one.item_fields), one.value) for one in told.contributions]
        schema = {"user_field": pl.String, "item_field": pl.String, "value": pl.Float64}
        return as_library(pl.DataFrame(rows, schema=schema, orient="row"), self._library)

    def evaluate(
        self, test: object = None, *, interactions: object = None, users: object = None, items: object = None
    ) -> EvaluationReport:
        """Evaluate on held-out interactions over the whole catalogue, beside popularity.

        Args:
            test: interactions that the model was not fitted on, in the columns of those that it was. Default: the part that
                the split held out.
            interactions: for a loaded model, those that it was fitted on; a fitted one has them.
            users: for a loaded model, the users table that it was fitted on.
            items: for a loaded model, the items table that it was fitted on.

        Returns:
            The report; its `frame()` has each metric with its interval.

        Raises:
            DataError: Nothing is held out, or the model was fitted on other data.
            ConfigError: The training interactions of a loaded model are not given.
        """
        given = dict(zip(TABLE_NAMES, (interactions, users, items), strict=True))
        sources = given if self._fitted is None else self._fitted.sources
        if sources["interactions"] is None:
            raise ConfigError(
                "the interactions that the model was fitted on are not given",
                where="interactions",
                why="the earlier items of a user are excluded from the answers",
                hint="model.evaluate(test, interactions=train)",
            )
        types = self.recommender.bundle.encoder.types
        if test is not None:
            config, sources = _tested(self.config, sources, test)
            return evaluate(self.recommender, dataset_of(config, open_tables(config.data, sources), types=types), config, TEST)
        if self._fitted is None:
            dataset = dataset_of(self.config, open_tables(self.config.data, sources), types=types)
        else:
            dataset = self._fitted.dataset
        part = TEST if len(dataset.select(TEST)) else VALID
        return evaluate(self.recommender, dataset, self.config, part)

    def save(self, root: str | Path) -> Path:
        """Publish the model to a root, where `recall serve` and `load` find it.

        Args:
            root: folder of published versions; created when missing. A service of this root swaps to the new version.

        Returns:
            The folder of the version.

        Raises:
            BundleError: The root serves another data set.
            PublishError: The file system refused.
        """
        return adopt(self.recommender.bundle.folder, Path(root)).folder

    def close(self) -> None:
        """Release files; the model cannot answer any more."""
        self.recommender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<recall.Model {', '.join(f'{name}: {value}' for name, value in self._facts())}>"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in self._facts())
        notes = "".join(f"<li>{html.escape(line)}</li>" for line in self.findings)
        return f"<table>{rows}</table>" + (f"<ul>{notes}</ul>" if notes else "")

    def _facts(self) -> list[tuple[str, str]]:
        bundle = self.recommender.bundle
        manifest = bundle.manifest
        measured = manifest.metrics.get("validation")
        shown = measured.items() if isinstance(measured, dict) else ()
        fields = bundle.encoder.schema.fields
        return [
            ("version", manifest.version),
            ("model", f"{manifest.model.kind}, {bundle.item_vectors.shape[1]} numbers a vector"),
            ("users", f"{len(self.recommender.users):,}"),
            ("items", f"{len(bundle.item_ids):,}"),
            ("fields", ", ".join(fields)),
            *(
                (f"validation {name}", f"{value:.4f}")
                for name, value in shown
                if isinstance(value, float) and name.startswith(_SHOWN)
            ),
        ]

    def _asked(self, users: Any, key: str) -> pl.DataFrame:
        """Return the requested users, with their further columns."""
        if users is None:
            return self._lists.everyone().to_frame()
        if not isinstance(users, pl.Series) and (hasattr(users, "columns") or isinstance(users, pl.LazyFrame)):
            frame = frame_of(users, "users")
            if key not in frame.columns:
                raise DataError(f"there is no column {key!r}", where="users", hint="Name the column of user ids so")
            return frame
        return self._many(users, key).to_frame()

    @staticmethod
    def _many(ids: Any, name: str) -> pl.Series:
        """Return one id or several as a series."""
        one = isinstance(ids, str | int | float) or not hasattr(ids, "__len__")
        return series_of([ids] if one else ids, name)


def load(path: str | Path) -> Model:
    """Open a published model: a root of versions, or one version.

    Args:
        path: what `Model.save` or `recall train` wrote.

    Raises:
        BundleError: It is missing or damaged.
    """
    return Model(open_published(Path(path)))


def open_published(path: Path) -> Recommender:
    """Open a published model, to be searched by all cores."""
    return Recommender.load(path, threads=os.cpu_count() or 1)


def _tested(config: RunConfig, sources: Mapping[str, object], test: object) -> tuple[RunConfig, dict[str, object]]:
    """Return a run with the given interactions as its test part."""
    tables = {
        part: open_table("interactions", source, config.data)
        for part, source in (("train", sources["interactions"]), ("test", test))
    }
    marked = [table.with_frame(table.frame.with_columns(pl.lit(part).alias(_PART))) for part, table in tables.items()]
    values = config.model_dump(mode="json", by_alias=True)
    values["data"] |= {"split": {"by": "column", "column": _PART}, "carve": 0.0, "carve_last": 0}
    return parse_config(values), {**sources, "interactions": append_rows(*marked).frame}


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=3)
