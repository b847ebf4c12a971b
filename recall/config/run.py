"""Configuration of a whole run, read from one TOML file.

An error names every fault of the file.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field, JsonValue, ValidationError, field_validator, model_validator

from recall.config.data import DataConfig
from recall.config.schema import FIELD_KINDS, AnyField, FieldConfig, Schema, Section, refuse_if
from recall.config.training import AutoConfig, FMConfig, Method, ModelConfig, SquareConfig, Train
from recall.errors import ConfigError, did_you_mean

INDEX_KINDS = {
    "auto": True,
    "faiss": True,
    "cells": False,
    "exact": False,
    "ivf": False,
    "milvus": True,
    "milvus_flat": False,
    "milvus_hnsw": False,
    "pgvector": True,
    "pgvector_exact": False,
    "pgvector_hnsw": False,
}
"""Whether each kind of index is chosen by tuning among others; `recall.index.registry.register` adds those of an engine."""

_NO_LONGER_BUILT = ("ivf_int8", "pq")


class IndexConfig(Section):
    """Index over the item vectors."""

    kind: str = "auto"
    """'auto': 'exact' for few items, otherwise the fastest embedded index that reaches the target. 'faiss': the same among the
    Faiss kinds. 'exact': a Faiss inner-product index (IndexFlatIP). 'ivf': a Faiss inverted file with 16-bit codes. 'cells':
    this project's inverted file with 8-bit codes. 'milvus': an index in Milvus, the faster of 'milvus_flat' and 'milvus_hnsw'
    that reaches the target. 'pgvector': the same in Postgres, of 'pgvector_exact' and 'pgvector_hnsw'. Engines that a program
    registers add their kinds."""
    exact_up_to: int = Field(default=20_000, ge=0)
    """With kind 'auto' or 'faiss': use exact search up to this number of items."""
    target: float = Field(default=0.99, gt=0, le=1)
    """Recall that an approximate index must reach: the share of the exact top n, in the mean over users."""
    n: int = Field(default=100, ge=1)
    """Length of the lists that the target refers to."""
    confidence: float = Field(default=0.95, ge=0.5, lt=1)
    """Confidence level of the lower bound on the recall. With a kind that chooses among others, such as 'auto', the bound must
    reach the target."""
    seconds: float = Field(default=600, gt=0)
    """Time limit in seconds after which no further candidate is tried, with kind 'auto' or 'faiss'."""
    boosts: tuple[str, ...] = ()
    """Boosts that requests can weight: numeric columns of the items, or `column=value`, which is 1 for items with this value
    and 0 otherwise. Numbers are not scaled; missing numbers count as 0."""

    @classmethod
    def recorded(cls, values: Mapping[str, JsonValue]) -> "IndexConfig":
        """Parse the section of a bundle's manifest.

        Kinds that are no longer built become 'ivf', those of an engine that is not registered here 'auto'.
        """
        kind = values.get("kind", "auto")
        if kind not in INDEX_KINDS:
            values = {**values, "kind": "ivf" if kind in _NO_LONGER_BUILT else "auto"}
        return cls.model_validate(values)

    @property
    def chooses(self) -> bool:
        """Whether the kind is chosen by tuning among others."""
        return INDEX_KINDS[self.kind]

    @field_validator("kind")
    @classmethod
    def _kind_is_known(cls, kind: str) -> str:
        if kind in _NO_LONGER_BUILT:
            raise ValueError(f"{kind!r} is no longer built, because it was never the fastest: write 'cells', 'ivf' or 'auto'")
        if kind not in INDEX_KINDS:
            raise ValueError(f"no index of kind {kind!r} is known. {did_you_mean(kind, INDEX_KINDS)}")
        return kind


class EvaluationConfig(Section):
    """Offline evaluation: requests and metrics."""

    at: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(default=(5, 10, 20), min_length=1)
    """Lengths of lists (k) that metrics are computed for, each 1 to 1000."""
    mask: Literal["none", "context", "user"] = "user"
    """Items to exclude from the lists: none, the training items of the same context, or all training items of the user."""
    request: Literal["row", "context"] = "context"
    """One request for each test row, or one for all test rows with the same user and context."""
    intervals: int = Field(default=1000, ge=0)
    """Number of bootstrap samples of users for the 95 % confidence intervals; 0 for none."""
    sample: int = Field(default=10_000, ge=1)
    """Maximum number of requests, sampled once, for the popularity weight, cold start, hold-outs and contributions of
    fields."""
    dial: tuple[Annotated[float, Field(ge=0, le=10)], ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
    """Values of a request's `popularity` for the curve of recall and coverage; empty for none."""


class ExportConfig(Section):
    """Check of the exported vectors, and number of versions to keep."""

    users: int = Field(default=256, ge=1)
    """Number of users sampled for the check."""
    items: int = Field(default=1024, ge=1)
    """Number of items sampled for the check."""
    tolerance: float = Field(default=1e-4, gt=0)
    """Largest relative difference between a served score and the score of the model with which a bundle is published."""
    keep: int = Field(default=3, ge=1)
    """Number of versions to keep when one is published: of the newest, and of those that were live last. Versions that are
    being served are kept, too."""


class RunConfig(Section):
    """A whole run."""

    name: str = "run"
    """Name of the bundle."""
    seed: int = Field(default=0, ge=0)
    """Seed of all random numbers of the run."""
    data: DataConfig = DataConfig()
    fields: dict[str, AnyField]
    model: Annotated[ModelConfig, Field(discriminator="kind")] = FMConfig()
    train: Train = SquareConfig()
    index: IndexConfig = IndexConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    export: ExportConfig = ExportConfig()

    @model_validator(mode="before")
    @classmethod
    def _usual_kinds(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        usual = {"model": {"kind": "fm"}, "train": {"objective": "square"}}
        given = {name: {**tag, **values[name]} for name, tag in usual.items() if isinstance(values.get(name), dict)}
        return {**values, **given}

    @model_validator(mode="after")
    def _schema_holds(self) -> "RunConfig":
        histories = self.schema_.histories
        if self.data.time is None:
            refuse_if(
                (
                    histories and self.data.has_negatives,
                    "a history field needs data.time if rows may be not taken: without it, the order of the rows is unknown",
                ),
                *(
                    (
                        len(field.lags) > 1 or field.lags[0][0] > 1 or field.decay,
                        f"without data.time, the column that orders each user's interactions, the history '{name}' holds what "
                        "else the user took, and has one range and no decay, such as lags = [[1, 50]]",
                    )
                    for name, field in histories.items()
                ),
                *(
                    (given, f"data.{key} needs data.time, the column that orders each user's interactions")
                    for key, given in (("half_life", self.data.half_life), ("carve_last", self.data.carve_last))
                ),
            )
        return self

    @model_validator(mode="after")
    def _model_can_be_trained(self) -> "RunConfig":
        refuse_if(
            (
                isinstance(self.train, SquareConfig) and self.model.cosine,
                "the square loss is of inner products and cannot train model.cosine = true",
            ),
            (
                isinstance(self.train, AutoConfig) and self.model.cosine,
                'train.objective = "auto" chooses model.cosine: leave it out, or name an objective',
            ),
            *(
                (
                    field.learn_weights and self.model.kind == "lr",
                    f"no list of a model of kind 'lr' depends on the history '{name}': leave out its learn_weights, "
                    "or choose a kind with factors, such as 'fm'",
                )
                for name, field in self.schema_.histories.items()
            ),
        )
        return self

    @model_validator(mode="after")
    def _boosts_are_columns_of_items(self) -> "RunConfig":
        schema = self.schema_
        known = {schema.item_id, *self.data.attributes}
        known |= {schema.column(name) for name, field in schema.fields.items() if field.side == "item" and not field.parts}
        for name in self.index.boosts:
            if name not in known and name.partition("=")[0] not in known:
                near = did_you_mean(name.partition("=")[0], known)
                raise ValueError(f"index.boosts names {name!r}, but no item field and no attribute reads such a column. {near}")
        return self

    @property
    def method(self) -> Method:
        """The objective and how it is trained.

        Raises:
            ConfigError: It is "auto", and no race has chosen one.
        """
        if isinstance(self.train, AutoConfig):
            raise ConfigError(
                'train.objective = "auto" is chosen by a race, which this run has not had',
                where="train.objective",
                hint="Run recall train, or name an objective",
            )
        return self.train

    @property
    def schema_(self) -> Schema:
        """The fields and id columns as the schema that travels with the model."""
        return Schema(user_id=self.data.user_id, item_id=self.data.item_id, fields=self.fields)


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run's configuration.

    Args:
        path: a TOML file.
        overrides: settings as `dotted.path=value`; the value is read as TOML, or as text when it is not TOML.

    Raises:
        ConfigError: the file is missing or not TOML, or a key or value is wrong; all faults are named at once.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("no such configuration file", where=str(path), hint="Give the path of a TOML file") from None
    except IsADirectoryError:
        hint = f"Give the file, such as {path / 'recall.toml'}"
        raise ConfigError("the configuration is a folder", where=str(path), hint=hint) from None
    except OSError as error:
        raise ConfigError("the configuration cannot be read", where=str(path), why=error.strerror or str(error)) from None
    except UnicodeDecodeError as error:
        hint = "Give the path of a TOML file, in UTF-8"
        raise ConfigError("the configuration cannot be read", where=str(path), why=str(error), hint=hint) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("this is not TOML", where=str(path), why=str(error), hint="Correct the line that is named") from None
    for override in overrides:
        apply_override(values, override)
    return parse_config(values, where=str(path))


def parse_config(values: dict[str, Any], where: str = "config") -> RunConfig:
    """Validate plain values, as read from a TOML file.

    Args:
        values: by section.
        where: names the source in errors.

    Raises:
        ConfigError: Some keys or values are wrong; names all of them.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_faults(error, values)), where=where) from None


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one setting of plain values, such as `train.sweeps=4`.

    Args:
        values: by section, changed in place.
        override: the setting.

    Raises:
        ConfigError: It is not `section.key=value`, or leads through a value.
    """
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(
            f"a setting must be section.key=value, got {override!r}", where="override", hint="Write it as section.key=value"
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{path!r} goes through {key!r}, which is a value, not a section", where="override")
    values[keys[-1]] = value


def _faults(error: ValidationError, values: dict[str, Any]) -> Iterable[str]:
    for fault in error.errors(include_url=False):
        models, shown = _walk(fault["loc"], values)
        if fault["type"] == "extra_forbidden":
            known = models[0].model_fields if len(models) == 1 else ()
            yield f"{'.'.join(shown)}: this key is not known. {did_you_mean(shown[-1], known)}"
        else:
            message = fault["msg"].removeprefix("Value error, ")
            given = fault.get("input")
            tail = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
            yield f"{'.'.join(shown) or 'config'}: {message}{tail}"


def _walk(location: Sequence[int | str], values: Any) -> tuple[list[type[BaseModel]], list[str]]:
    """Follow a pydantic error location.

    Returns:
        What the object with its last step may be, and the path without tags.
    """
    shown: list[str] = []
    here: Any = RunConfig
    models: list[type[BaseModel]] = []
    for part in map(str, location):
        models = models_of(here) if get_origin(here) is not dict else []
        tagged = [one for one in models if part in _tags(one)]
        if tagged and not (len(models) == 1 and isinstance(values, dict) and part in values):
            here = tagged[0]  # the tag of a discriminated union is not a key of the file
            continue
        shown.append(part)
        values = values.get(part) if isinstance(values, dict) else None
        if get_origin(here) is dict:
            here = get_args(here)[1]
        else:
            field = models[0].model_fields.get(part) if len(models) == 1 else None
            here = None if field is None else field.annotation
        if get_origin(here) is not dict and models_of(here) == [*FIELD_KINDS.values()]:
            here = FIELD_KINDS.get(str(values.get("kind"))) if isinstance(values, dict) else None
    return models, shown


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """Return the models that a type, or a union, list or table of types, may be."""
    if annotation is FieldConfig:
        return list(FIELD_KINDS.values())
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return [model for part in get_args(annotation) for model in models_of(part)]
    return models_of(get_args(annotation)[-1]) if get_origin(annotation) in (dict, list) else []


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    fields = [model.model_fields[name] for name in ("kind", "by", "objective") if name in model.model_fields]
    return tuple(str(value) for field in fields for value in get_args(field.annotation))
