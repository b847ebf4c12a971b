"""One TOML file says everything about a run: where the data are, what the fields mean, how to learn, index and evaluate.

Every value is frozen once read; a key that is not known is refused with the nearest name that is. A setting may be
overridden by its dotted path, such as `train.sweeps=4`.
"""

import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from recall.errors import ConfigError, nearest
from recall.schema import AnyField, Schema


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ColumnSplit(_Section):
    """The split of each interaction is named in a column."""

    by: Literal["column"]
    column: str = "split"
    """Column of the interactions that names the split."""
    train: tuple[str, ...] = ("train",)
    """Values of the column that mean training."""
    valid: tuple[str, ...] = ("valid",)
    """Values that mean validation."""
    test: tuple[str, ...] = ("test",)
    """Values that mean test; any value in none of the three lists is an error."""

    @model_validator(mode="after")
    def _parts_are_apart(self) -> "ColumnSplit":
        named = (*self.train, *self.valid, *self.test)
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise ValueError(f"a value means one part of the split, but {twice} are named more than once")
        return self


class LastSplit(_Section):
    """The last `test` interactions of each user are tested on, the `valid` before those validate; needs `data.time`."""

    by: Literal["last"]
    test: int = Field(default=1, ge=0)
    """Interactions of each user to test on."""
    valid: int = Field(default=1, ge=0)
    """Interactions of each user, before those, to validate on."""


class TimeSplit(_Section):
    """Interactions at or after `test` are tested on, those at or after `valid` validate; a share of all rows or a time."""

    by: Literal["time"]
    test: float = 0.9
    """A number in (0, 1) is a quantile of all times; any other is a time in the column's own unit."""
    valid: float | None = None
    """Read as `test` is, and earlier than it; nothing validates when left out."""


class NoSplit(_Section):
    """Everything trains."""

    by: Literal["none"] = "none"


Split = Annotated[ColumnSplit | LastSplit | TimeSplit | NoSplit, Field(discriminator="by")]


class DataConfig(_Section):
    """The three tables and the columns that play a part; paths are relative to the data folder."""

    interactions: str = "interactions.parquet"
    """One row for each interaction, `.parquet` or `.csv`."""
    users: str | None = None
    """One row for each user; needed only for user fields that the interactions do not have."""
    items: str | None = None
    """One row for each item; its rows are the catalogue, with items met only in the interactions added."""
    user_id: str = "user_id"
    """Column with the user's id, in the interactions and in the users table."""
    item_id: str = "item_id"
    """Column with the item's id, in the interactions and in the items table."""
    time: str | None = None
    """Time or position; orders each user's interactions. Ties keep the order of the file."""
    weight: str | None = None
    """Positive strength of an interaction; 1 for all when left out."""
    half_life: float | None = Field(default=None, gt=0)
    """A training interaction weighs half for every so many later ones of its user; all weigh alike when left out."""
    label: str | None = None
    """Column of 1 and 0; a row of 0 was shown and not taken. It is no interaction; log loss learns from it, and is judged."""
    split: Split = NoSplit()
    carve: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the training interactions drawn at random to validate on, when the split itself leaves none."""
    carve_last: int = Field(default=0, ge=0)
    """Last training interactions of each user to validate on, when the split leaves none; needs `time`."""


class _Factors(_Section):
    k: int = Field(default=64, ge=1, le=1024)
    """Number of factors of one embedding."""
    cosine: bool = False
    """Scale user and item vectors to unit length, so that scores are cosines; not for the square loss."""


class FMConfig(_Factors):
    """The factorization machine (Rendle 2010); vectors of k + 1 numbers."""

    kind: Literal["fm"] = "fm"

    def dim(self, user_fields: int, item_fields: int) -> int:  # noqa: ARG002
        """Length of a served vector of a model over so many fields of each side."""
        return self.k + 1


class FwFMConfig(_Factors):
    """The field-weighted factorization machine (Pan et al. 2018); vectors of rank k + 1 numbers."""

    kind: Literal["fwfm"]
    rank: int | None = Field(default=None, ge=1)
    """Keep at most so many directions of the weights between user and item fields; all that are there when left out."""
    tolerance: float = Field(default=1e-6, ge=0, lt=1)
    """Drop directions whose singular value is at most this share of the largest."""

    @model_validator(mode="after")
    def _a_cosine_is_whole(self) -> "FwFMConfig":
        if self.cosine and self.rank is not None:
            raise ValueError("a cosine is of whole vectors: leave rank out, or set cosine = false")
        return self

    def dim(self, user_fields: int, item_fields: int) -> int:
        """Largest length of a served vector of a model over so many fields of each side."""
        rank = item_fields if self.cosine else min(user_fields, item_fields, self.rank or item_fields)
        return rank * self.k + 1


class FFMConfig(_Factors):
    """The field-aware factorization machine (Juan et al. 2016); vectors of (user fields) (item fields) k + 1 numbers."""

    kind: Literal["ffm"]

    def dim(self, user_fields: int, item_fields: int) -> int:
        """Length of a served vector of a model over so many fields of each side."""
        return user_fields * item_fields * self.k + 1


class LRConfig(_Section):
    """Logistic or linear regression: every feature has a weight and nothing else, so that all users get the same list."""

    kind: Literal["lr"]

    @property
    def k(self) -> int:
        """No factors."""
        return 0

    @property
    def cosine(self) -> bool:
        """The cosine of two numbers is their sign, which ranks nothing."""
        return False

    def dim(self, user_fields: int, item_fields: int) -> int:  # noqa: ARG002
        """Length of a served vector."""
        return 1


ModelConfig = FMConfig | FwFMConfig | FFMConfig | LRConfig


class StoppingConfig(_Section):
    """When to look at the validation part, and when to stop."""

    every: int = Field(default=1, ge=1)
    """Sweeps or epochs between two looks."""
    patience: int = Field(default=3, ge=1)
    """Looks without a better figure before training stops; the best model is kept."""
    metric: Literal["ndcg", "recall"] = "ndcg"
    """The figure that must get better."""
    at: int = Field(default=10, ge=1)
    """Length of the list that the figure speaks of."""
    requests: int = Field(default=10_000, ge=1)
    """At most this many validation requests are looked at, drawn once."""


class OpeningConfig(_Section):
    """Square loss over every (context, item) pair, by alternating conjugate gradients, before another objective."""

    sweeps: int = Field(default=6, ge=1)
    """Times that both sides are solved."""
    steps: int = Field(default=5, ge=1)
    """Conjugate-gradient steps on each side in each sweep."""
    unobserved: float = Field(default=20.0, gt=0)
    """Weight of all pairs together, whose score is drawn to 0, for each unit of observed weight, drawn to 1."""
    popularity: float = Field(default=0.25, ge=0, le=2)
    """Items share that weight as this power of their observed count."""
    activity: float = Field(default=0.5, ge=0, le=2)
    """Contexts share that weight as this power of their observed count."""
    regularisation: float = Field(default=0.001, ge=0)
    """Weight of the squared size of the parameters, beside what each of them sees of the data."""
    nu: float = Field(default=1.0, ge=0, le=2)
    """Regularisation of a feature grows with this power of how much data it sees."""
    drop: float = Field(default=0.05, ge=0, lt=1)
    """Share of contexts and items repeated with values dropped, which trains the unknown rows."""
    scale: float = Field(default=0.1, gt=0)
    """Standard deviation of a starting vector's length."""


class SquareConfig(OpeningConfig):
    """Square loss over every (context, item) pair, by alternating conjugate gradients."""

    objective: Literal["square"] = "square"
    sweeps: int = Field(default=12, ge=1)
    """Times that both sides are solved, at most."""
    stopping: StoppingConfig = StoppingConfig()

    @property
    def starting_scale(self) -> float:
        """Standard deviation of a starting vector's length."""
        return self.scale


class FTRLConfig(_Section):
    """FTRL-Proximal for the first-order weights, which makes many of them exactly zero."""

    l1: float = Field(default=0.001, ge=0)
    """Weight of the sum of absolute values; larger makes more weights zero."""
    l2: float = Field(default=0.0, ge=0)
    """Weight of the squared size."""
    learning_rate: float = Field(default=0.1, gt=0)
    """Alpha of McMahan et al. 2013; beta is 1."""


class GradientConfig(_Section):
    """What all learning by stochastic gradients has in common."""

    epochs: int = Field(default=20, ge=1)
    """Passes over the training part, at most."""
    optimiser: Literal["adam", "adagrad", "sgd"] = "adam"
    """Rule that turns gradients into steps of the rows that a batch uses."""
    learning_rate: float = Field(default=0.01, gt=0)
    """Size of a step."""
    schedule: Literal["linear", "constant"] = "linear"
    """Let the learning rate fall to 0 in a straight line over all epochs, or leave it."""
    first_order: FTRLConfig | None = None
    """A rule of their own for the first-order weights; that of the factors when left out."""
    regularisation: float = Field(default=0.0, ge=0)
    """Weight of the squared size of the parameters that a step touches."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of a context's values left out of each batch, the others weighing more."""
    drop: float = Field(default=0.02, ge=0, lt=1)
    """Share of a batch's contexts and items of which about half of the fields are unknown, which trains the unknown rows."""
    scale: float = Field(default=1.0, gt=0)
    """Standard deviation of a starting vector's length."""
    opening: OpeningConfig | None = None
    """Sweeps of the square loss to begin with; from chance when left out."""
    stopping: StoppingConfig = StoppingConfig()

    @property
    def sweeps(self) -> int:
        """Epochs, and an opening, which counts as one, before them."""
        return self.epochs + (self.opening is not None)

    @property
    def starting_scale(self) -> float:
        """Standard deviation of a starting vector's length, of the opening where there is one."""
        return self.scale if self.opening is None else self.opening.scale


class SoftmaxConfig(GradientConfig):
    """Softmax: an observed item against the whole catalogue, or a part of it."""

    objective: Literal["softmax"]
    candidates: Literal["all", "sampled", "in-batch"] = "all"
    """Against every item, against draws that a batch shares, or against the items of the batch's other pairs."""
    batch: int = Field(default=256, ge=1)
    """Contexts in one step; observed pairs in one step with candidates "in-batch"."""
    temperature: float = Field(default=1.0, gt=0)
    """Scores are divided by it; about 0.1 with model.cosine."""
    activity: float = Field(default=1.0, ge=0, le=2)
    """A context weighs as this power of its observed weight."""
    samples: int = Field(default=1024, ge=1)
    """Draws in one step with candidates "sampled"."""
    popularity: float = Field(default=0.5, ge=0, le=2)
    """Samples are drawn with this power of the item's observed count."""
    correct: bool = True
    """With candidates "in-batch": take the logarithm of an item's share of all pairs from its scores."""


class PairwiseConfig(GradientConfig):
    """An observed item against negatives of its own: BPR, WARP, or log loss, which gives probabilities."""

    objective: Literal["bpr", "warp", "logistic"]
    batch: int = Field(default=4096, ge=1)
    """Observed pairs in one step."""
    negatives: int = Field(default=4, ge=1)
    """Negatives drawn for a pair; "warp" stops at the first that scores too high; with `data.label` "logistic" draws none."""
    popularity: float = Field(default=0.5, ge=0, le=2)
    """Negatives are drawn with this power of the item's observed count."""
    hard: float = Field(default=0.0, ge=0, le=1)
    """Share of the negatives drawn from the items that the model, as it was at the start of the epoch, puts on top."""
    pool: int = Field(default=100, ge=1, le=1000)
    """Length of the list that hard negatives are drawn from."""
    margin: float = Field(default=1.0, gt=0)
    """With "warp": how far an observed item must score above a negative."""


Train = Annotated[SquareConfig | SoftmaxConfig | PairwiseConfig, Field(discriminator="objective")]


class IndexConfig(_Section):
    """How item vectors are searched."""

    kind: Literal["auto", "exact", "ivf"] = "auto"
    """Exact search, IVF with 16-bit vectors, or whichever fits the number of items."""
    exact_up_to: int = Field(default=50_000, ge=0)
    """With kind 'auto': exact search up to this many items, IVF above."""
    target: float = Field(default=0.99, gt=0, le=1)
    """Share of the exact top n that IVF must find on held-out user vectors; nprobe is set by it."""
    n: int = Field(default=100, ge=1)
    """Length of the lists that the target speaks of."""


class EvaluationConfig(_Section):
    """What is asked of the finished model, and how the answers are judged."""

    at: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(default=(5, 10, 20), min_length=1)
    """Lengths of list that the metrics are given for, each 1 to 1000, the longest that an answer may be."""
    mask: Literal["none", "context", "user"] = "user"
    """Leave out of a list: nothing, what exactly this context has in train, or all that the user has in train."""
    request: Literal["row", "context"] = "context"
    """One request for each test row, or one for all test rows that share their user and context."""
    intervals: int = Field(default=1000, ge=0)
    """Bootstrap resamples of users for the 95 % intervals; 0 leaves them out."""
    sample: int = Field(default=10_000, ge=1)
    """At most this many requests, drawn once, for the dial, for cold start and for what each field is worth."""
    dial: tuple[Annotated[float, Field(ge=0, le=10)], ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
    """Settings of a request's `popularity` for the curve of recall and coverage; an empty list leaves it out."""


class ExportConfig(_Section):
    """How the exported vectors are proved."""

    users: int = Field(default=256, ge=1)
    """Users drawn for the proof."""
    items: int = Field(default=1024, ge=1)
    """Items drawn for the proof."""
    tolerance: float = Field(default=1e-4, gt=0)
    """Largest relative difference between a served score and the model's at which a bundle is still published."""


class RunConfig(_Section):
    """A whole run."""

    name: str = "run"
    """Name of the bundle."""
    seed: int = Field(default=0, ge=0)
    """Fixes every random choice of the run."""
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
        schema = self.schema_
        if schema.history is not None and self.data.time is None:
            raise ValueError("a history field needs data.time, the column that orders each user's interactions")
        for key, set_ in (("half_life", self.data.half_life is not None), ("carve_last", self.data.carve_last > 0)):
            if set_ and self.data.time is None:
                raise ValueError(f"data.{key} needs data.time, the column that orders each user's interactions")
        return self

    @model_validator(mode="after")
    def _model_can_be_trained(self) -> "RunConfig":
        if isinstance(self.train, SquareConfig) and self.model.cosine:
            raise ValueError("the square loss is of inner products and cannot train model.cosine = true")
        return self

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
        raise ConfigError("no such configuration file", where=str(path), mend="Give the path of a TOML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the configuration cannot be read", where=str(path), why=str(error)) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("this is not TOML", where=str(path), why=str(error), mend="Correct the line that is named") from None
    for override in overrides:
        _override(values, override)
    return parse_config(values, where=str(path))


def parse_config(values: dict[str, Any], where: str = "config") -> RunConfig:
    """A run's configuration from plain values, as a TOML file would give them. Raises ConfigError."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_faults(error, values)), where=where) from None


def _override(values: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"{override!r} is no setting", where="override", mend="Write it as section.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{path!r} goes through {key!r}, which is a value and no section", where="override")
    values[keys[-1]] = value


def _faults(error: ValidationError, values: dict[str, Any]) -> Iterable[str]:
    for fault in error.errors(include_url=False):
        location = list(fault["loc"])
        if fault["type"] == "extra_forbidden":
            model, shown = _walk(RunConfig, location[:-1], values)
            known = model.model_fields if model is not None else ()
            yield f"{'.'.join([*shown, str(location[-1])])}: this key is not known. {nearest(str(location[-1]), known)}"
        else:
            _, shown = _walk(RunConfig, location, values)
            message = fault["msg"].removeprefix("Value error, ")
            given = fault.get("input")
            tail = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
            yield f"{'.'.join(shown) or 'config'}: {message}{tail}"


def _walk(
    model: type[BaseModel] | None, location: Sequence[int | str], values: Any
) -> tuple[type[BaseModel] | None, list[str]]:
    """Follow a pydantic error location; gives the model reached and the location without the tags of unions."""
    shown: list[str] = []
    here: Any = model
    for part in location:
        members = _members(here)
        tagged = [member for member in members if str(part) in _tags(member)]
        if tagged and not (isinstance(values, dict) and part in values and len(members) == 1):
            here = tagged[0]  # the tag of a discriminated union, which is no key of the file
            continue
        shown.append(str(part))
        values = values.get(part) if isinstance(values, dict) else None
        here = _child(members[0], str(part)) if len(members) == 1 else None
    members = _members(here)
    return (
        members[0] if len(members) == 1 and isinstance(members[0], type) and issubclass(members[0], BaseModel) else None
    ), shown


def _members(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if isinstance(annotation, type) or get_origin(annotation) in (dict, tuple, list, Literal) or annotation is None:
        return [annotation]
    return [leaf for member in get_args(annotation) for leaf in _members(member)]


def _tags(member: Any) -> tuple[str, ...]:
    if not (isinstance(member, type) and issubclass(member, BaseModel)):
        return ()
    return tuple(
        str(value)
        for name in ("kind", "by", "objective")
        if name in member.model_fields
        for value in get_args(member.model_fields[name].annotation)
    )


def _child(member: Any, name: str) -> Any:
    if isinstance(member, type) and issubclass(member, BaseModel) and name in member.model_fields:
        return member.model_fields[name].annotation
    if get_origin(member) is dict:
        return get_args(member)[1]
    return None
