"""Models of what goes over the wire."""

import datetime
from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, SkipValidation, WithJsonSchema
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from recall.serving.request import LARGEST_POPULARITY, Request
from recall.serving.rerank.channels import Channels
from recall.serving.rerank.rules import MOST_RULES, TaggedRule
from recall.serving.response import Recommendations, ScoredItem
from service.errors import ProblemDocument, parsed

MOST_RESULTS = 1000
LONGEST_ID = 1024
_USUAL = {"user_id", "n"}
_REQUEST_FIELDS = {field.name for field in fields(Request)}
Scalar = str | int | float | bool | None


def _as_id(value: object) -> object:
    """Return an id as text; integers become what tables of integer ids are read to."""
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


class Condition(BaseModel):
    """What the value of one column must be; several conditions hold together."""

    equals: Scalar = Field(default=None, description="This value; a value alone says the same.")
    in_: list[Scalar] = Field(default=[], alias="in", description="One of these.")
    gt: Scalar = Field(default=None, description="Greater than this.")
    gte: Scalar = Field(default=None, description="At least this.")
    lt: Scalar = Field(default=None, description="Less than this.")
    lte: Scalar = Field(default=None, description="At most this.")
    any: list[Scalar] = Field(default=[], description="A list that holds one of these.")
    all: list[Scalar] = Field(default=[], description="A list that holds all of these.")
    missing: bool = Field(default=False, description="Whether there is no value.")
    exists: bool = Field(default=True, description="Whether there is a value.")


FilterTree = TypeAliasType("FilterTree", "dict[str, Scalar | list[Scalar] | Condition | list[FilterTree] | FilterTree]")


Filter = Annotated[
    dict[Column, Any],
    Field(max_length=1000),
    BeforeValidator(lambda value: value, json_schema_input_type=FilterTree),  # the bundle knows what its columns may be
]


class Body(BaseModel):
    """A request body: no value is converted, and no key is unknown."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Query(Body):
    """A body that asks the recommender something."""

    def request(self) -> Request:
        """Return the request to the recommender, made of the fields that both have."""
        given: dict[str, Any] = {}
        for name in self.model_fields_set & _REQUEST_FIELDS:
            value = getattr(self, name)
            given[name] = tuple(value) if isinstance(value, list) else value
        return Request(**given)


class Selection(Query):
    """Number of items, and which may be returned."""

    n: int = Field(default=10, ge=1, le=MOST_RESULTS, description="Number of items wanted.")
    exclude: Annotated[list[Id], Field(max_length=10_000)] = Field(
        default=[], description="Items to leave out.", examples=[["3"]]
    )
    filter: Filter | None = Field(
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


class Caller(Query):
    """Who asks, and what is known of them now."""

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


class Scoring(Caller):
    """A caller, and what scores are made of besides the model."""

    popularity: Dial = 1.0
    boosts: Annotated[dict[Column, Annotated[float, Field(ge=-1e6, le=1e6)]], Field(max_length=100)] = Field(
        default={},
        description="Weights of further numbers of items, which are added to their scores; the answer is exact by the "
        "sum. `/v1/info` lists the names.",
        examples=[{"margin": 0.2, "genre=noir": 0.5}],
    )


class Ranking(Selection, Scoring):
    """A caller, and which items they want in what order."""

    exclude_seen: bool = Field(default=True, description="Leave out the items that the user has had.")
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


class RecommendRequest(Ranking):
    """The user, what is known of them, and the wanted items; all parts are optional."""

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


class Reply(BaseModel):
    """The body of an answer with status 200."""

    request_id: str = Field(description="The same as the X-Request-ID header.")


class Answer(Reply):
    """What an answer rests on."""

    bundle: str = Field(description="Version of the bundle that this whole answer comes from.", examples=["000001-4f2a90c1"])
    sequence: int = Field(description="The last live change of items that this answer has seen; 0 before the first.")
    exact: bool = Field(description="Whether it is provably right, or rests on an approximate search.")
    degraded: list[Degradation] = Field(
        description="Parts of the service that this answer had to do without, or with less of; empty when all is well."
    )


class CallerAnswer(Answer):
    """An answer that speaks of a user."""

    user: Literal["known", "unknown", "anonymous"] = Field(
        description="Whether user_id is known; 'anonymous' when none was sent. "
        "An unknown user is answered from the rest of the request."
    )
    unknown: list[str] = Field(description="Columns whose value the model has never seen.")
    warnings: list[str] = Field(description="Parts of the request that had no effect.")
    user_offset: float = Field(
        description="Add it to a score, asked with popularity 1, for the model's full score; the same for all items."
    )


class RecommendResponse(CallerAnswer):
    """The best items, best first, and what they rest on."""

    items: list[Item] = Field(examples=[[{"item_id": "12", "score": 1.875}]])
    exact: bool = Field(
        description="Whether these are provably the best items, or those of an approximate search. "
        "With rules and channels: whether the model's ranking that they were given is exact."
    )


def parse_request(body: object) -> Request:
    """Return a request to the recommender from the plain values of a body.

    Raises:
        ProblemError: They are invalid; names each fault.
    """
    if type(body) is dict and body.keys() == _USUAL:  # what most requests say needs no more than this look
        user_id, n = body["user_id"], body["n"]
        if type(user_id) is str and 0 < len(user_id) <= LONGEST_ID and type(n) is int and 0 < n <= MOST_RESULTS:
            return Request(user_id, n=n)
    return parsed(RecommendRequest, body).request()


def to_json(content: Mapping[str, object]) -> bytes:
    """Return a JSON document.

    Named tuples become objects; values unknown to JSON, such as dates of item columns, become text.
    """
    return orjson.dumps(content, default=_plain)


def _plain(value: Any) -> object:
    if isinstance(value, ScoredItem):
        return {"item_id": value.item_id, "score": value.score}
    return value._asdict() if hasattr(value, "_asdict") else str(value)


def render_answer(answer: Recommendations, request_id: str) -> bytes:
    """Return the JSON of RecommendResponse, straight from the recommender's answer.

    Args:
        answer: of the recommender.
        request_id: of the request.
    """
    document = recommendations_of(answer)
    document["request_id"] = request_id
    return to_json(document)


def recommendations_of(answer: Recommendations) -> dict[str, object]:
    """Return an answer as values for `to_json`, without the request's id.

    orjson writes dicts several times faster than dataclasses.
    """
    items: list[dict[str, object]] = [
        {"item_id": item_id, "score": score} for item_id, score in zip(answer.ids, answer.scores, strict=True)
    ]
    for item, sources in zip(items, answer.sources or (), strict=False):
        item["sources"] = sources
    for item, parts in zip(items, answer.contributions, strict=False):
        item["contributions"] = parts
    return {
        "items": items,
        "user": answer.user,
        "bundle": answer.bundle,
        "sequence": answer.sequence,
        "exact": answer.exact,
        "unknown": answer.unknown,
        "warnings": answer.warnings,
        "degraded": answer.degraded,
        "user_offset": answer.user_offset,
    }


MOST_REQUESTS = 256


class BatchRequest(Body):
    """Requests that have nothing to do with each other."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"requests": [{"user_id": "42", "n": 10}, {"user_id": "43", "n": 10}]}]},
    )

    requests: Annotated[list[SkipValidation[RecommendRequest]], Field(min_length=1, max_length=MOST_REQUESTS)] = Field(
        description="Each is answered as it would be alone; one that is wrong is refused alone."
    )


class BatchAnswer(BaseModel):
    """What became of one of the requests."""

    status: int = Field(description="What it would have been answered with alone.", examples=[200])
    answer: RecommendResponse | None = Field(default=None, description="Only with status 200.")
    problem: ProblemDocument | None = Field(default=None, description="Only with another status.")


class BatchResponse(Answer):
    """An answer or a problem for each request in order, all from one snapshot."""

    answers: list[BatchAnswer]


class CatalogueEntry(BaseModel):
    """One item as the catalogue holds it."""

    item_id: str
    features: dict[str, Any] = Field(description="Values by column; what is missing is left out.", examples=[{"price": 9.5}])


class ItemResponse(Answer, CatalogueEntry):
    """One item."""


class ItemsResponse(Answer):
    """One page of the catalogue, in order of the ids."""

    items: list[CatalogueEntry]
    next_page_token: str = Field(description="Give it as `page_token` for the page that follows; empty on the last one.")


class ExplainRequest(Scoring):
    """Who asks, and whose score is to be explained to them."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "42", "item_id": "12", "values": True}]})

    item_id: Id = Field(description="An item of the catalogue, whether or not it would be listed.", examples=["12"])
    values: bool = Field(default=False, description="Tell what single values bring too, and not only what fields do.")


class TableValue(BaseModel):
    """One value of a user or an item."""

    field: str = Field(description="A history has a field for each range of lags.", examples=["genre", "history[1]"])
    value: str | None = Field(description="In writing; null where `state` says that there is none.", examples=["noir"])
    weight: float = Field(description="How much of it there is, as the model has it.")
    state: Literal["learnt", "unknown", "missing"] = Field(
        description="Whether the model has learnt the value, has not, or there is none."
    )


class ValuePair(BaseModel):
    """What some values bring to a score."""

    user: TableValue | None = Field(description="A value of the user; null for the item's own part.")
    items: list[TableValue] = Field(description="A value of the item, or two for a pair of its own.")
    value: float


class ExplainResponse(Answer):
    """How the score of one item comes about."""

    item_id: str
    score: float = Field(description="What the item would be listed with, boosts included.")
    contributions: list[FieldContribution] = Field(description="By fields, the largest first; they add up to the score.")
    values: list[ValuePair] | None = Field(description="By values, the largest first, at most 1000; null unless asked for.")
    rest: float = Field(description="What `values` leaves out, boosts among it: with them it adds up to the score.")
    user_offset: float = Field(description="The part of the model's score that is the same for every item.")


class WhyNotRequest(Ranking):
    """A request for recommendations, and the item that is looked for in its answer."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "42", "item_id": "12", "n": 10, "filter": {"genre": "noir"}}]}
    )

    item_id: Id = Field(description="An item of the catalogue.", examples=["12"])


class AbsenceReason(BaseModel):
    """Something that keeps an item out of a list."""

    kind: Literal["excluded", "seen", "allow", "filter", "score", "rule", "rules", "channels", "search"] = Field(
        description="`excluded`, `seen`, `allow` and `filter` make the item ineligible. `score`: enough others score higher. "
        "`rule` and `channels`: without this one rule, or without channels, it would be listed; `rules`: without all of them "
        "together. `search`: an approximate search has not found it."
    )
    where: str = Field(description="JSON pointer to the part of the request; empty where there is none.", examples=["/rules/0"])
    text: str


class WhyNotResponse(Answer):
    """The rank of an item, and what excludes it.

    The ranking is that of all eligible items by the model's score with boosts, before rules and channels; the item is counted
    among them, eligible or not. `exact` refers to the answer, not to the ranking, which is exact.
    """

    item_id: str
    listed: int | None = Field(description="The item's place in the answer, from 1; null when it is not there.")
    reasons: list[AbsenceReason] = Field(description="All that keep it out; empty when it is listed.")
    score: float
    rank: int = Field(description="Its place in the ranking, from 1.")
    eligible: int = Field(description="Number of items that are ranked, this one included.")
    last: Item | None = Field(
        description="The other item that it has to overtake to be among the first `n`; null when there are fewer."
    )
    missing: float | None = Field(description="The score of `last` less its own; null without `last`.")
    contributions: list[FieldContribution] = Field(
        description="What `last` has from each pair of fields more than it; they add up to `missing`."
    )


class Liveness(BaseModel):
    """The process runs."""

    status: Literal["live"] = "live"


class RefusedBundle(BaseModel):
    """A published bundle that is not served."""

    bundle: str = Field(description="Name of its folder.")
    reason: str


class Readiness(BaseModel):
    """Requests are answered."""

    status: Literal["ready"] = "ready"
    bundle: str = Field(description="Version of the bundle that is served.", examples=["000001-4f2a90c1"])
    refused: RefusedBundle | None = Field(
        description="The live bundle, when it was refused and a different one is served; null when all is well."
    )
    degraded: list[Degradation] = Field(description="What is not as it should be; empty when all is well.")


class Sizes(BaseModel):
    """How large the bundle is."""

    users: int
    items: int
    factors: int


class Columns(BaseModel):
    """What a request may say."""

    features: list[str] = Field(description="Keys of `features`.")
    context: list[str] = Field(description="Keys of `context`.")
    history: bool = Field(description="Whether previous items count for more than being left out.")
    filter: dict[str, str] = Field(
        description="Columns of the items that `filter` may name, and the type of their values: text, integer, float32, "
        'float64, boolean, date, time (a moment), clock (a time of day), or "list of" one of these.',
        examples=[{"genre": "text", "price": "float64", "tags": "list of text", "published": "time"}],
    )
    types: dict[str, str] = Field(description="Types of the columns that `features` and `context` name.")
    boosts: list[str] = Field(description="Keys of `boosts`.")


class IndexCertificate(BaseModel):
    """A lower bound on the recall of the index, from held-out users."""

    target: float = Field(description="Share that was asked for.")
    n: int = Field(description="Length of the lists.")
    queries: int = Field(description="Users on whom the bound was found; 0 of an index that is exact by construction.")
    recall: float = Field(description="Mean share that was found for them.")
    lower: float = Field(description="The mean over all such users is at least this,")
    confidence: float = Field(description="with this probability.")
    met: bool = Field(description="Whether `lower` is at least `target`.")


class Info(Reply):
    """The bundle that is served."""

    name: str = Field(description="Name that the run was given in its configuration.")
    bundle: str = Field(description="Version of the bundle.", examples=["000001-4f2a90c1"])
    sequence: int = Field(description="Number of the bundle, which grows with every one published to one place.")
    created: str = Field(description="When it was made, in UTC.")
    sizes: Sizes
    index: str = Field(description="How items are searched.", examples=["exact"])
    certificate: IndexCertificate | None = Field(description="Null where the kind of index was prescribed.")
    columns: Columns
    changes: int = Field(description="The last live change of items that is served; answers call it their `sequence`.")
    degraded: list[Degradation] = Field(description="What answers have to do without now, and why; empty when all is well.")


MOST_INTERACTIONS = 1000
_LATEST = 253_402_300_799  # the last second of the year 9999


def _as_time(value: object) -> float:
    """Seconds since 1970, from themselves or from a date and time with a zone."""
    if isinstance(value, str) and len(value) <= 64:
        try:
            moment = datetime.datetime.fromisoformat(value)
            value = moment.timestamp() if moment.tzinfo is not None else None
        except (ValueError, OverflowError):
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LATEST <= value <= _LATEST:
        raise PydanticCustomError(
            "time", "A time is a number of seconds since 1970, or a text with a zone such as 2026-01-31T18:00:00Z"
        )
    return float(value)


Time = Annotated[
    float,
    PlainValidator(_as_time),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": -_LATEST, "maximum": _LATEST},
                {"type": "string", "format": "date-time", "maxLength": 64},
            ]
        }
    ),
]


class Interaction(Body):
    """A user took an item."""

    user_id: Id = Field(description="One of whom nothing is known becomes known.")
    item_id: Id = Field(description="One that the catalogue lacks is kept, and named in the answer.")
    time: Time | None = Field(
        default=None,
        description="When, in seconds since 1970 or as a date and time with a zone. It puts the item in its place among the "
        "user's others; without one it is the latest.",
        examples=[1769882400, "2026-01-31T18:00:00Z"],
    )


class Interactions(Body):
    """Interactions to add, in order: all of them or none."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"interactions": [{"user_id": "42", "item_id": "7"}]}]},
    )

    interactions: Annotated[list[Interaction], Field(min_length=1, max_length=MOST_INTERACTIONS)]


class Taken(Reply):
    """The interactions are stored, and the next request includes them."""

    change: int = Field(description="Number of the last one among all changes of users, counted apart from those of items.")
    known: int = Field(description="How many of the users were known before.")
    unknown: list[str] = Field(description="Items that the catalogue lacks; they are kept, and count once it has them.")
    bundle: str = Field(description="Version of the bundle whose catalogue that is.", examples=["000001-4f2a90c1"])


MOST_ITEMS = 1000


class ItemUpsert(Body):
    """One item, whole: a column that is left out is missing."""

    item_id: Id
    features: dict[Column, Value] = Field(default={}, description="Values of items-table columns.", examples=[{"price": 9.5}])


class ItemsUpsert(Body):
    """Items to insert or replace, all or none."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [{"item_id": "i9000", "features": {"price": 9.5}}]}]},
    )

    items: Annotated[list[ItemUpsert], Field(min_length=1, max_length=MOST_ITEMS)]


class ItemsDelete(Body):
    """Items to delete: all of them or none."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"item_ids": ["i9000"]}]})

    item_ids: Annotated[list[Id], Field(min_length=1, max_length=MOST_ITEMS)]


class Changed(Reply):
    """The change is on disk, and in every later answer of any worker."""

    sequence: int = Field(description="Answers of this sequence or a later one have seen the change.")
    token: str = Field(
        description="Names the change; opaque. A request that sends it as X-Recall-Token is answered when the change is served."
    )
    known: int = Field(description="How many of the items the catalogue held before.")
    warnings: list[str] = Field(
        default=[], description="What the model can make little of: values that it was not trained on, numbers far out."
    )


class ServerLive(BaseModel):
    """The process runs."""

    live: Literal[True] = True


class ServerReady(BaseModel):
    """Requests are answered."""

    ready: Literal[True] = True


class ModelReady(BaseModel):
    """The model answers requests."""

    name: str
    ready: Literal[True] = True


class ServerMetadata(BaseModel):
    """What the server is."""

    name: Literal["fm-recall"] = "fm-recall"
    version: str = Field(description="Version of the paths that are answered.")
    extensions: list[str] = []


class TensorMetadata(BaseModel):
    """An input or an output."""

    name: str
    datatype: str = Field(examples=["BYTES"])
    shape: list[int] = Field(description="-1 for a length that varies.")


class ModelMetadata(BaseModel):
    """What the model is."""

    name: str = Field(description="Name that the run was given in its configuration.")
    versions: list[str] = Field(description="The version of the bundle that is served.")
    platform: Literal["fm-recall"] = "fm-recall"
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


_VERSION_EXAMPLE = "000001-4f2a90c1"


class Model(BaseModel):
    """One published version."""

    version: str = Field(examples=[_VERSION_EXAMPLE])
    live: bool = Field(description="Whether it is the one that should be served.")
    served: bool = Field(description="Whether this process answers from it.")
    name: str | None = Field(default=None, description="Name that the run was given; null where `fault` says something.")
    sequence: int | None = Field(default=None, description="Number of the publication.")
    parent: int | None = Field(default=None, description="Number of the version that it was made from.")
    created: str | None = Field(default=None, description="UTC, ISO 8601.")
    kind: str | None = Field(default=None, description="Of the model.", examples=["fm"])
    index: str | None = Field(default=None, description="How items are searched.", examples=["exact"])
    users: int | None = None
    items: int | None = None
    golden: int | None = Field(default=None, description="Requests that it must answer as it did before it is served.")
    bytes: int | None = Field(default=None, description="Size of all its files.")
    fault: str | None = Field(default=None, description="Why its manifest cannot be read; null when it can.")


class Models(Reply):
    """All published versions."""

    models: list[Model] = Field(description="The newest first.")
    live: str | None = Field(description="The version that should be served; null when none is named.")
    served: str | None = Field(description="The version that this process answers from; null before the first.")


class Activated(Reply):
    """Another version is live and answers here; other processes follow at once."""

    version: str = Field(description="The version that is live now.", examples=[_VERSION_EXAMPLE])
    previous: str | None = Field(description="The version that was; null when none was.")


class ScoreRequest(Scoring):
    """Who asks, and the items to score for them."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "42", "items": ["12", "7"]}]})

    items: Annotated[list[Id], Field(min_length=1, max_length=MOST_RESULTS)] = Field(
        description="Items to score, in any order and with repeats; nothing is searched or left out."
    )


class ItemScore(BaseModel):
    """The score of one item."""

    item_id: str
    score: float = Field(description="What `/v1/recommend` would list the item with.")
    probability: float | None = Field(
        description="That the item is taken, by the model's full score; null unless the model was trained by log loss and the "
        "request has neither boosts nor another `popularity` than 1."
    )


class ScoreResponse(CallerAnswer):
    """Scores in the order in which the items were given."""

    items: list[ItemScore]
    missing: list[str] = Field(description="Items that the catalogue lacks, each once.")


class UserVectorRequest(Caller):
    """Who asks for their vector."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "42"}, {"features": {"age": 31}, "popularity": 0.5}]})

    popularity: Dial = 1.0


class UserVectorResponse(CallerAnswer):
    """What a request is searched with."""

    vector: list[float] = Field(description="Its inner product with an item's vector is the item's score.")


class SimilarRequest(Selection):
    """The number of items, and which may be returned. All parts are optional."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"n": 5, "filter": {"genre": "noir"}}]})


class SimilarItem(BaseModel):
    """An item, and how much it is like the one asked about."""

    item_id: str
    score: float = Field(
        description="Cosine of the two items' vectors, -1 to 1; what an item scores for everyone plays no part."
    )


class SimilarResponse(Answer):
    """The items most like one item, most alike first."""

    item_id: str = Field(description="The item asked about, which is not among them.")
    items: list[SimilarItem]
    warnings: list[str] = Field(description="Parts of the request that had no effect.")


MOST_USERS = 1000
_Features = Annotated[dict[Column, Value], Field(max_length=1000)]
_History = Annotated[list[Id], Field(max_length=1000)]
_Seen = Annotated[list[Id], Field(max_length=10_000)]


class UserPut(Body):
    """A user, whole: what is left out is not known any more."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"features": {"age": 31}, "history": ["12", "7"], "seen": ["3"]}]},
    )

    features: _Features = Field(default={}, description="Values of users-table columns.", examples=[{"age": 31}])
    history: _History = Field(default=[], description="Items, latest first; they count as seen.", examples=[["12", "7"]])
    seen: _Seen = Field(default=[], description="Further items that the user had.", examples=[["3"]])


class UserUpsert(Body):
    """Parts of a user; what is left out stays as it is."""

    user_id: Id
    features: _Features = Field(
        default={},
        description="Values of users-table columns, each of which replaces the one before; null for a missing one.",
        examples=[{"age": 31}],
    )
    history: _History | None = Field(
        default=None, description="Items, latest first, in the place of those before; they count as seen.", examples=[["12"]]
    )
    seen: _Seen | None = Field(
        default=None, description="Further items that the user had, in the place of those before.", examples=[["3"]]
    )


class UsersUpsert(Body):
    """Users to change, or to make known: all of them or none."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"users": [{"user_id": "u9000", "features": {"age": 31}}]}]},
    )

    users: Annotated[list[UserUpsert], Field(min_length=1, max_length=MOST_USERS)]


class UsersDelete(Body):
    """Users to forget: all of them or none."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_ids": ["u9000"]}]})

    user_ids: Annotated[list[Id], Field(min_length=1, max_length=MOST_USERS)]


class UsersChanged(Reply):
    """The change is stored, and in every answer that follows."""

    change: int = Field(description="Its number among all changes of users, which are counted apart from those of items.")
    known: int = Field(description="How many of the users were known before.")
    warnings: list[str] = Field(
        default=[], description="What the model can make little of: values that it was not trained on, numbers far out."
    )


class KnownUser(Reply):
    """What is known of a user now."""

    user_id: str
    features: dict[str, Any] = Field(description="Values by column.", examples=[{"age": 31}])
    history: list[str] = Field(description="Items, latest first.", examples=[["12", "7"]])
    seen: list[str] = Field(description="Every different item that the user had, latest first.", examples=[["12", "7", "3"]])
    bundle: str = Field(description="Version of the bundle over which the changes lie.", examples=["000001-4f2a90c1"])
    degraded: list[Degradation] = Field(description="That later changes are not known, and why; empty when all is well.")


class UserEntry(BaseModel):
    """A user on a page."""

    user_id: str


class UsersPage(Reply):
    """One page of the users that are known, in order of the ids."""

    users: list[UserEntry]
    next_page_token: str = Field(description="Give it as `page_token` for the page that follows; empty on the last one.")
    bundle: str = Field(description="Version of the bundle over which the changes lie.", examples=["000001-4f2a90c1"])
