"""What goes over the wire: requests as clients write them, answers as they read them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator
from pydantic_core import PydanticCustomError

from recall.serving.request import LARGEST_POPULARITY, Request
from recall.serving.rerank.channels import Channels
from recall.serving.rerank.rules import MOST_RULES, TaggedRule
from recall.serving.response import Contribution, Recommendations
from service.parsing import parsed

MOST_RESULTS = 1000
LONGEST_ID = 1024
_USUAL = {"user_id", "n"}

Scalar = str | int | float | bool | None


def _as_id(value: object) -> object:
    """Ids are strings; an integer is taken as the string that tables with integer ids are read to."""
    if type(value) is int:
        return str(value)
    if type(value) is not str:
        raise PydanticCustomError("id", "An id is a string or an integer")
    return value


def _as_value(value: object) -> object:
    scalars = value if isinstance(value, list) else [value]
    if not all(scalar is None or isinstance(scalar, str | int | float) for scalar in scalars):
        raise PydanticCustomError("value", "A value is a string, a number, true, false, null, or a list of those")
    return value


Id = Annotated[str, BeforeValidator(_as_id, json_schema_input_type=str | int), Field(min_length=1, max_length=LONGEST_ID)]
Column = Annotated[str, Field(min_length=1, max_length=256)]
Dial = Annotated[
    float,
    Field(
        ge=0,
        le=LARGEST_POPULARITY,
        description="Weight of the part of a score that an item has for everyone, in which its popularity lies: 1 ranks as "
        "the model does, 0 by what this user and the item have with each other alone.",
        examples=[0.5],
    ),
]
Value = Annotated[Any, PlainValidator(_as_value, json_schema_input_type=Scalar | list[Scalar])]


class Caller(BaseModel):
    """Who asks, and what is known of them now."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    user_id: Id | None = Field(default=None, description="A known user; their features, history and seen items are then known.")
    features: dict[Column, Value] = Field(
        default={}, description="Values of users-table columns; each overrides the stored one.", examples=[{"age": 31}]
    )
    context: dict[Column, Value] = Field(
        default={}, description="Values of context columns, known only when the request comes.", examples=[{"hour": 18}]
    )
    history: Annotated[list[Id], Field(max_length=1000)] | None = Field(
        default=None,
        description="The user's previous items, most recent first; replaces the stored history.",
        examples=[["7", "12"]],
    )

    def request(self) -> Request:
        """What is asked of the recommender."""
        return Request(self.user_id, self.features, self.context, None if self.history is None else tuple(self.history))


class Scoring(Caller):
    """A caller, and what scores are made of besides the model."""

    popularity: Dial = 1.0
    boosts: Annotated[dict[Column, Annotated[float, Field(ge=-1e6, le=1e6)]], Field(max_length=100)] = Field(
        default={},
        description="Weights of further numbers of items, which are added to their scores; the answer holds surely the best by "
        "the sum. `/v1/info` lists the names.",
        examples=[{"margin": 0.2, "genre=noir": 0.5}],
    )

    def request(self) -> Request:
        """What is asked of the recommender."""
        return replace(super().request(), popularity=self.popularity, boosts=self.boosts)


class Ranking(Scoring):
    """A caller, and which items they want in what order."""

    n: int = Field(default=10, ge=1, le=MOST_RESULTS, description="Number of items wanted.")
    exclude_seen: bool = Field(default=True, description="Leave out what the user had already.")
    exclude: Annotated[list[Id], Field(max_length=10_000)] = Field(
        default=[], description="Items to leave out besides.", examples=[["3"]]
    )
    filter: Annotated[dict[Column, Any], Field(max_length=1000)] | None = Field(
        default=None,
        description="What the items' columns must say: a condition for each column, such as a value, "
        '{"in": [...]}, {"gte": 10, "lt": 50}, {"any": [...]} or {"all": [...]} of a list, {"missing": true}; '
        'and "all", "any" and "not" of further filters, "available": {"from": column, "until": column, "at": "now"}, and '
        '"columns": {...} for columns that are called like one of these words. `/v1/info` lists the columns. '
        "The best of the items that match are returned, `n` of them if there are as many.",
        examples=[{"genre": {"in": ["noir", "drama"]}, "not": {"genre": "noir"}}],
    )
    allow: Annotated[list[Id], Field(max_length=10_000)] | None = Field(
        default=None, description="The only items that may be returned; all when left out.", examples=[["3", "12"]]
    )
    rules: Annotated[list[TaggedRule], Field(max_length=MOST_RULES)] = Field(
        default=[],
        description="Quotas, duplicates, diversity and pins, one after another in this order. As many candidates are looked at "
        "as it takes: the answer is what the rules leave of the whole ranking, `n` of it if there is as much.",
        examples=[[{"kind": "quota", "column": "genre", "most": 3}, {"kind": "diversify", "relevance": 0.7}]],
    )
    channels: Channels | None = Field(
        default=None,
        description="Lists that are merged with the model's, before any rule; each item then says its `sources`.",
        examples=[{"lists": [{"kind": "model"}, {"kind": "list", "name": "editors", "items": ["12", "7"]}]}],
    )

    def request(self) -> Request:
        """What is asked of the recommender."""
        return Request(
            user_id=self.user_id,
            features=self.features,
            context=self.context,
            history=None if self.history is None else tuple(self.history),
            n=self.n,
            exclude_seen=self.exclude_seen,
            exclude=tuple(self.exclude),
            popularity=self.popularity,
            filter=self.filter,
            allow=None if self.allow is None else tuple(self.allow),
            rules=tuple(self.rules),
            channels=self.channels,
            boosts=self.boosts,
        )


class RecommendRequest(Ranking):
    """Who asks, what is known of them now, and what they want. Everything may be left out."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": "42", "n": 10},
                {"features": {"age": 31}, "history": ["7", "12"], "n": 5, "popularity": 0.5},
                {"user_id": "42", "rules": [{"kind": "dedupe", "column": "series"}, {"kind": "pin", "items": {"12": 1}}]},
            ]
        },
    )

    explain: bool = Field(
        default=False, description="Say of every item what its score comes from, field by field; for an `n` of at most 100."
    )

    def request(self) -> Request:
        """What is asked of the recommender."""
        asked = super().request()
        return replace(asked, explain=True) if self.explain else asked


class ItemSource(BaseModel):
    """A channel that holds an item."""

    channel: str
    rank: int = Field(description="The item's place in the channel, from 1.")


class FieldContribution(BaseModel):
    """What some fields bring to a score."""

    user_field: str | None = Field(
        description="A field of the user, or 'boosts'; null for the item's own part, which is the same for everyone."
    )
    item_fields: list[str] = Field(
        description="The item's field, or two for a pair of its own.", examples=[["genre"], ["genre", "price"]]
    )
    value: float


class Item(BaseModel):
    """One recommended item."""

    item_id: str
    score: float = Field(
        description="The model's score less the part that is the same for every item of this user; with another `popularity` "
        "than 1, the item's own part counts that many times. Boosts are part of it, and where channels were merged it is "
        "their sum."
    )
    sources: list[ItemSource] = Field(
        default=[], description="The channels that hold the item; only where the request names channels."
    )
    contributions: list[FieldContribution] = Field(
        default=[],
        description="What the score comes from, the largest part first; they add up to it, or where channels were merged to "
        "the model's score. Only where the request says `explain`.",
    )


class Degradation(BaseModel):
    """A part of the service that does not work as it should."""

    part: str = Field(examples=["items"])
    reason: str = Field(examples=["later changes of items are not known"])


class RecommendResponse(BaseModel):
    """The best items, best first, and what they rest on."""

    items: list[Item] = Field(examples=[[{"item_id": "12", "score": 1.875}]])
    user: Literal["known", "unknown", "anonymous"] = Field(
        description="Whether user_id is known; 'anonymous' when none was sent. "
        "An unknown user is answered from the rest of the request."
    )
    bundle: str = Field(description="Version of the bundle that this whole answer comes from.", examples=["000001-4f2a90c1"])
    sequence: int = Field(description="The last live change of items that this answer has seen; 0 before the first.")
    exact: bool = Field(
        description="Whether these are surely the best items, or an approximate search found them. "
        "With rules and channels: whether the model's ranking that they were given is surely right."
    )
    unknown: list[str] = Field(description="Columns whose value the model has never seen.")
    warnings: list[str] = Field(description="Parts of the request that had no effect.")
    degraded: list[Degradation] = Field(
        description="Parts of the service that this answer had to do without, or with less of; empty when all is well."
    )
    user_offset: float = Field(
        description="Add it to a score, asked with popularity 1, for the model's full score; the same for all."
    )
    request_id: str = Field(description="The same as the X-Request-ID header.")


def parse_request(body: object) -> Request:
    """A request to the recommender from the plain values of a body. Raises ProblemError that names each fault."""
    if type(body) is dict and body.keys() == _USUAL:  # what most requests say needs no more than this look
        user_id, n = body["user_id"], body["n"]
        if type(user_id) is str and 0 < len(user_id) <= LONGEST_ID and type(n) is int and 0 < n <= MOST_RESULTS:
            return Request(user_id, n=n)
    return parsed(RecommendRequest, body).request()


def render_answer(answer: Recommendations, request_id: str) -> bytes:
    """The JSON form of RecommendResponse, written straight from the recommender's answer."""
    document = recommendations_of(answer)
    document["request_id"] = request_id
    return orjson.dumps(document)


def recommendations_of(answer: Recommendations) -> dict[str, object]:
    """The same without a request's id, as plain values: orjson writes dicts several times faster than dataclasses."""
    return {
        "items": [{"item_id": item_id, "score": score} for item_id, score in zip(answer.ids, answer.scores, strict=True)]
        if answer.sources is None and not answer.contributions
        else _told(answer),
        "user": answer.user,
        "bundle": answer.bundle,
        "sequence": answer.sequence,
        "exact": answer.exact,
        "unknown": answer.unknown,
        "warnings": answer.warnings,
        "degraded": [{"part": one.part, "reason": one.reason} for one in answer.degraded],
        "user_offset": answer.user_offset,
    }


def contributions_of(parts: Sequence[Contribution]) -> list[dict[str, object]]:
    """What fields bring to a score, as plain values."""
    return [{"user_field": user, "item_fields": items, "value": value} for user, items, value in parts]


def _told(answer: Recommendations) -> list[dict[str, object]]:
    """Items with their sources and what their scores come from, where they have any."""
    items: list[dict[str, object]] = [{"item_id": item.item_id, "score": item.score} for item in answer.items]
    for document, sources in zip(items, answer.sources or (), strict=False):
        document["sources"] = [{"channel": source.channel, "rank": source.rank} for source in sources]
    for document, parts in zip(items, answer.contributions, strict=False):
        document["contributions"] = contributions_of(parts)
    return items
