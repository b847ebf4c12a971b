"""Known recipes, as overrides of a configuration, each with its reason.

Their settings were found on the validation parts of ml-100k, ml-1m, toys, frappe and gowalla, and of generated shops. No recipe
is the best for all of these data, so they are raced.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import polars as pl
from pydantic import JsonValue

from recall.config import RunConfig
from recall.config.schema import BagField, CategoricalField, NumericField, Schema
from recall.data.dataset import Dataset
from recall.features.encoder import FeatureEncoder

Values = dict[str, JsonValue]
"""Sections and keys that override those of a configuration; a field that is None is left out."""


USUAL_K = 64


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings that are known to suit some kind of data.

    Attributes:
        name: for the report.
        reason: which data it suits.
        train: the section `train`.
        cosine: whether scores are cosines.
        k: number of factors, where none is configured.
        tuned_on: the public data set that its numbers come from; empty if they come from several, or from generated data.
    """

    name: str
    reason: str
    train: Mapping[str, JsonValue]
    cosine: bool = False
    k: int = USUAL_K
    tuned_on: str = ""


SQUARES = (
    Recipe("square", "the defaults: many interactions of each user", {"objective": "square"}),
    Recipe(
        "square, sparse",
        "sparse data with order: the less an item was seen, the more it is regularised in proportion",
        {"objective": "square", "start": "singular", "steps": 8, "popularity": 0.5, "regularisation": 0.005, "nu": 0.5},
        tuned_on="toys",
    ),
    Recipe(
        "square, regularised",
        "few interactions of each item; the best of all on toys with its user ids",
        {"objective": "square", "regularisation": 0.01},
        tuned_on="toys",
    ),
    Recipe(
        "square, dense",
        "dense data",
        {"objective": "square", "unobserved": 15.0, "popularity": 0.35, "regularisation": 0.003},
        tuned_on="ml-100k",
    ),
    Recipe(
        "square, near popularity",
        "so little data that only strong regularisation is not worse than popularity",
        {"objective": "square", "unobserved": 60.0, "popularity": 0.5, "regularisation": 0.04, "nu": 0.75},
    ),
    Recipe(
        "square, small",
        "some thousands of interactions and ids alone: near the best of a grid on four generated logs of 6,000 to 15,000",
        {"objective": "square", "popularity": 0.5, "regularisation": 0.08, "nu": 0.75},
    ),
)
"""Whole-catalogue square losses, by descending gain where each wins, as there may be no time for the last ones."""

SPARSE = SQUARES[1]
"""The recipe that was tuned with a long history."""
_LARGEST_SOFTMAX = 300_000_000
"""(context, item) pairs of one epoch above which candidates are sampled, where a user has many contexts.

With 500 million, of two fifths of the users of toys, that takes half the time, and NDCG@10 is .050 instead of .046; with
230 million, of toys without times and fields, all candidates take half the time of 2,048.
"""
_LARGEST_OF_USERS = 2_000_000_000
"""The same where a user has one context, and with it many items: then an epoch is cheap, and more candidates teach more.

With 610 million, of gowalla, NDCG@20 is .111 with all candidates; with other settings for all three, .104 with 2,048 and .113
with 8,192.
"""
_ONE = 1.5  # contexts of a user, up to which they count as one. Chosen, not tuned.
_SAMPLES, _SAMPLES_OF_USERS = 2048, 8192
_LARGE = 100_000  # pairs of a race from which there is time for ten epochs before other recipes. Chosen, not tuned.
_LARGE_K = {700_000: 192, 500_000: 128}
"""Factors, by the pairs of the final training from which they help, where a user has one context. NDCG@20 on parts of gowalla's
training rows: .107 with 64 and .117 with 128; by its example, .119 with 128 and .123 with 192, in 1.5 times the time."""
_OF_USERS: Values = {"learning_rate": 0.02, "dropout": 0.0, "epochs": 10}
"""For one context of each user, in batches of 1,024. A context has many items, so a small batch has as many pairs as a large
one of other data. NDCG@20 on validation parts (k 64, temperature .08, 10 epochs), and with the rate .01, batches of 256 and
dropout .1: toys without its order .0587 and .0513, ml-100k without its order .108 and .106, all training rows of gowalla .110
and .104 (8 epochs), half of those of amazon-book-kg .116 and .114."""
_FEWEST_OF_USERS = 8_000  # contexts for such batches: fewer leave too few steps. Chosen, not tuned.
_OPENING = ("steps", "unobserved", "popularity", "activity", "regularisation", "nu", "first_order", "drop", "scale", "start")


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of what trains.

    Attributes:
        contexts: distinct contexts.
        users: distinct users.
        items: of the catalogue.
        pairs: distinct (context, item) pairs.
        share: of the data of the final training, which may have more than a race.
        item_ids_only: whether items have no field beside their id.
    """

    contexts: int
    users: int
    items: int
    pairs: int
    share: float = 1.0
    item_ids_only: bool = False


def has_item_ids_only(schema: Schema) -> bool:
    """Return whether items have no field beside their id.

    Args:
        schema: the fields.
    """
    return all(schema.item_id in field.columns(name) for name, field in schema.fields.items() if field.side == "item")


def softmaxes(square: Mapping[str, JsonValue], scale: Scale, least_k: int = USUAL_K) -> tuple[Recipe, ...]:
    """Return the objectives that continue from a square loss.

    Args:
        square: the section `train` of the best square loss, which becomes the opening.
        scale: of the data; decides batch, candidates, factors, and whether items train as new ones.
        least_k: least number of factors, such as that of the square loss.

    Where items have their ids only, nothing can be learnt about new ones, which only displace others: on gowalla's
    training rows (k 64, six epochs) NDCG@20 is .1066 with a twentieth of them, and .1078 without.
    """
    opening: Values = {**{key: square[key] for key in _OPENING if key in square}, "sweeps": 5}
    contexts, one_each = scale.contexts, scale.contexts <= _ONE * scale.users
    batch = 1024 if contexts > (_FEWEST_OF_USERS if one_each else 300_000) else 512 if contexts > 60_000 else 256
    most, samples = (_LARGEST_OF_USERS, _SAMPLES_OF_USERS) if one_each else (_LARGEST_SOFTMAX, _SAMPLES)
    sampled: Values = {"candidates": "sampled", "samples": samples} if contexts * scale.items > most else {}
    gradients: Values = {"epochs": 6, "learning_rate": 0.005, "dropout": 0.1, "opening": opening}
    if scale.item_ids_only:
        gradients["drop"] = 0.0
    k = max(least_k, next((k for pairs, k in _LARGE_K.items() if one_each and scale.pairs / scale.share >= pairs), 0))

    def softmax(temperature: float, reason: str, **changes: JsonValue) -> Recipe:
        train = {"objective": "softmax", "batch": batch, "temperature": temperature, **gradients, **sampled, **changes}
        return Recipe(f"softmax, temperature {temperature:g}", reason, train, cosine=True, k=k)

    usual = softmax(0.1, "the best on frappe and ml-1m, with small differences between temperatures")
    many = softmax(0.08, "many interactions of each item", learning_rate=0.01, epochs=10)
    if one_each:
        usual = softmax(0.12, "one context of each user, with few items: toys without its order", **_OF_USERS)
        many = softmax(0.08, "one context of each user, with many items: gowalla, amazon-book-kg", **_OF_USERS)
    return (
        *((many, usual) if one_each and scale.pairs >= _LARGE else (usual, many)),
        softmax(0.14, "few interactions", dropout=0.3, learning_rate=0.003),
        Recipe(
            "bpr",
            "comparable with other systems; seldom the best",
            {"objective": "bpr", **gradients, "negatives": 4, "popularity": 0.5, "learning_rate": 0.003},
            k=least_k,
        ),
    )


def field_choices(
    config: RunConfig, dataset: Dataset, encoder: FeatureEncoder, without: str = ""
) -> Iterator[tuple[str, Values]]:
    """Yield fields to leave out or to change: a name, and the overrides.

    A history may identify the user, so that the id overfits; or order may not matter, so that the history is noise. A field of
    many values takes time and may be noise; but text that a field splits into values stays, because requests may filter by it,
    and columns of requests stay, because requests have them. The effect of a number need not be monotonic: one in buckets.

    Args:
        config: of the run.
        dataset: its data.
        encoder: fitted on its training part.
        without: public data set whose own choices are left out.
    """
    schema = config.schema_
    crossed = {part for field in schema.fields.values() for part in field.parts}
    ids = [
        name
        for name, field in schema.fields.items()
        if field.side == "user" and schema.user_id in field.columns(name) and name not in crossed and not field.parts
    ]
    for name, history in schema.histories.items():
        if not (history.decay or history.weighted) and config.data.time is not None:
            if without == _LONG_TUNED_ON:
                continue
            if ids:
                yield f"with a long {name} and without {', '.join(ids)}", {"fields": {**dict.fromkeys(ids), name: dict(_LONG)}}
            yield f"with a long {name}", {"fields": {name: dict(_LONG)}}
            yield f"with a long {name} of norm sqrt", {"fields": {name: {**_LONG, "norm": "sqrt"}}}
        elif (norm := _OTHER_NORM.get(history.norm)) is not None:
            yield f"with {name} of norm {norm}", {"fields": {name: {"norm": norm}}}
    if schema.histories and ids:
        yield f"without {', '.join(ids)}", {"fields": dict.fromkeys(ids)}
        yield f"without {', '.join(schema.histories)}", {"fields": dict.fromkeys(schema.histories)}
    if config.data.time is None and not schema.histories and ids and not config.data.has_negatives:
        bag: Values = {free_name(schema.fields): dict(_OTHERS)}
        yield "with a bag of the user's other items", {"fields": bag}
        yield f"with a bag of the user's other items and without {', '.join(ids)}", {"fields": {**dict.fromkeys(ids), **bag}}
    numbers = [
        name
        for name, field in schema.fields.items()
        if isinstance(field, NumericField) and field.scale != "buckets" and name not in crossed
    ]
    if numbers:
        yield f"with {', '.join(numbers)} in buckets", {"fields": {name: {"scale": "buckets"} for name in numbers}}
    for name, field in schema.fields.items():
        if field.side != "item" or name in crossed or not isinstance(field, BagField | CategoricalField):
            continue
        size = sum(block.size for block in encoder.item_blocks if block.field == name)
        separated = any(dataset.items[column].dtype == pl.String for column in field.separators(name))
        if schema.item_id in field.columns(name) or separated or size < _COSTLY:
            continue
        attributes = [*config.data.attributes, *field.columns(name)]
        yield f"without {name}", {"fields": {name: None}, "data": {"attributes": list(dict.fromkeys(attributes))}}


def free_name(used: Collection[str]) -> str:
    """Return a name for a bag of other items that no field has.

    Args:
        used: names of fields.
    """
    return next(name for name in (f"others{'_' * count}" for count in range(len(used) + 1)) if name not in used)


_OTHERS: Values = {"kind": "history", "lags": [[1, 50]]}
"""Where interactions have no order. Chosen, not tuned."""
_LONG: Values = {"lags": [[1, 50]], "decay": 1.0, "norm": "mean"}
"""A history of 50 items, of which the last weighs most: far better than three ranges on toys, where it was tuned."""
_LONG_TUNED_ON = "toys"
TUNED_ON = frozenset({_LONG_TUNED_ON, *(recipe.tuned_on for recipe in SQUARES if recipe.tuned_on)})
"""Public data sets with their own recipes or choices."""
_OTHER_NORM = {"mean": "sqrt", "sqrt": "mean"}  # the first was better on toys, the second on ml-1m
_COSTLY = 500  # values from which a field of items is raced against its absence. Chosen, not tuned.


def neighbours(train: Mapping[str, JsonValue], k: int, fixed_k: bool) -> Iterator[tuple[str, Values, int]]:
    """Yield settings near some: a name, the changes of the section `train`, and k.

    Args:
        train: the section.
        k: number of factors.
        fixed_k: whether k was configured, and stays.
    """
    near = _near_square if train["objective"] == "square" else _near_gradients
    others = [] if fixed_k else [other for other in (k * 2, k // 2) if _LEAST_K <= other <= _MOST_K]
    yield from ((f"k {other}", {}, other) for other in others if other > k)  # first, since it helps most often
    yield from ((name, change, k) for name, change in near(train))
    yield from ((f"k {other}", {}, other) for other in others if other < k)


_LEAST_K, _MOST_K = 16, 128


def _near_square(train: Mapping[str, JsonValue]) -> Iterator[tuple[str, Values]]:
    for key, usual, factors in (("regularisation", 0.001, (2.5, 1.5)), ("unobserved", 20.0, (2.0,))):
        value = _number(train, key, usual)
        for other in (changed for factor in factors for changed in (value * factor, value / factor)):
            yield f"{key} {other:.2g}", {key: float(f"{other:.3g}")}
    for key, usual, step, most in (("popularity", 0.25, 0.25, 1.0), ("activity", 0.5, 0.5, 1.0), ("nu", 1.0, 0.25, 1.0)):
        value = _number(train, key, usual)
        for other in (value + step, value - step):
            if 0 <= other <= most:
                yield f"{key} {other:.2g}", {key: other}


def _near_gradients(train: Mapping[str, JsonValue]) -> Iterator[tuple[str, Values]]:
    factors = (("learning_rate", 0.005, 2.0), ("temperature", 0.1, 1.3))
    for key, usual, factor in factors[: 2 if train["objective"] == "softmax" else 1]:
        value = _number(train, key, usual)
        for other in (value * factor, value / factor):
            yield f"{key} {other:.2g}", {key: float(f"{other:.3g}")}
    value = _number(train, "dropout", 0.1)
    for other in (0.3, 0.0, 0.1):
        if other != value:
            yield f"dropout {other:g}", {"dropout": other}
    if train["objective"] == "softmax" and _number(train, "activity", 1.0) == 1.0:
        yield "activity 0.5", {"activity": 0.5}


def _number(train: Mapping[str, JsonValue], key: str, usual: float) -> float:
    value = train.get(key, usual)
    return float(value) if isinstance(value, int | float) else usual
