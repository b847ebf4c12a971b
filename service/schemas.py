"""Models of request and response bodies."""

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, SkipValidation, WithJsonSchema
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from recall import Channels, Recommendations, Request, ScoredItem
from recall.serving.query import MOST_EXPLAINED as MOST_EXPLAINED
from recall.serving.query import MOST_ROWS
from recall.serving.request import LARGEST_POPULARITY
from recall.serving.rerank.rules import MOST_RULES, TaggedRule
from service.errors import ProblemDocument, parsed

MOST_RESULTS = 1000
MOST_CHANGES = 1000
"""Items, users or interactions in one change."""
LONGEST_ID = 1024
_USUAL = {"user_id", "n"}
_REQUEST_FIELDS = {field.name for field in fields(Request)}
Scalar = str | int | float | bool | None


def _as_id(value: object) -> object:
    """Return an id as text; integers become text as those in tables do."""
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
        description="Weight of the part of a score that is the same for every user, such as the item's popularity: 1 ranks as "
        "the model does, 0 ignores it.",
        examples=[0.5],
    ),
]
Value = Annotated[Any, PlainValidator(_as_value, json_schema_input_type=Scalar | list[Scalar])]


class Condition(BaseModel):
    """Condition on the value of one column; several of them must all hold."""

    equals: Scalar = Field(default=None, description="This value; a plain value means the same.")
    in_: list[Scalar] = Field(default=[], alias="in", description="One of these.")
    gt: Scalar = Field(default=None, description="Greater than this.")
    gte: Scalar = Field(default=None, description="At least this.")
    lt: Scalar = Field(default=None, description="Less than this.")
    lte: Scalar = Field(default=None, description="At most this.")
    any: list[Scalar] = Field(default=[], description="A list that contains one of these.")
    all: list[Scalar] = Field(default=[], description="A list that contains all of these.")
    missing: bool = Field(default=False, description="Whether there is no value.")
    exists: bool = Field(default=True, description="Whether there is a value.")


FilterTree = TypeAliasType("FilterTree", "dict[str, Scalar | list[Scalar] | Condition | list[FilterTree] | FilterTree]")


Filter = Annotated[
    dict[Column, Any],
    Field(max_length=1000),
    BeforeValidator(lambda value: value, json_schema_input_type=FilterTree),  # checked by the bundle, which knows its columns
]


class Body(BaseModel):
    """A request body; no value is converted, and unknown keys are refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Query(Body):
    """A body with a request to the recommender."""

    def request(self) -> Request:
        """Return the request to the recommender, from the fields that both have."""
        given: dict[str, Any] = {}
        for name in self.model_fields_set & _REQUEST_FIELDS:
            value = getattr(self, name)
            given[name] = tuple(value) if isinstance(value, list) else value
        return Request(**given)


class Listing(Query):
    """Which columns of the items an answer has."""

    fields: Annotated[list[Column], Field(max_length=100)] = Field(
        default=[],
        description="Columns of the items whose values the answer has, such as a title; `/v1/info` lists them under `filter`.",
        examples=[["genre"]],
    )


class Selection(Query):
    """How many items are wanted, and which may be returned."""

    n: int = Field(default=10, ge=1, le=MOST_RESULTS, description="Number of items wanted.")
    exclude: Annotated[list[Id], Field(max_length=10_000)] = Field(
        default=[], description="Items to leave out.", examples=[["3"]]
    )
    filter: Filter | None = Field(
        default=None,
        description="Conditions on the items' columns: for each column a value, "
        '{"in": [...]}, {"gte": 10, "lt": 50}, {"any": [...]} or {"all": [...]} of a list, {"missing": true}; '
        'and "all", "any" and "not" of further filters, "available": {"from": column, "until": column, "at": "now"}, and '
        '"columns": {...} for columns that have one of these words as their name. `/v1/info` lists the columns. '
        "The best of the items that match are returned, `n` of them if there are as many.",
        examples=[{"genre": {"in": ["noir", "drama"]}, "not": {"genre": "noir"}}],
    )
    allow: Annotated[list[Id], Field(max_length=10_000)] | None = Field(
        default=None, description="The only items that may be returned; all when left out.", examples=[["3", "12"]]
    )


class Caller(Query):
    """The user of a request, and what the request says about them."""

    user_id: Id | None = Field(default=None, description="A user, whose stored features, history and seen items are used.")
    features: dict[Column, Value] = Field(
        default={}, description="Values of users-table columns; each overrides the stored one.", examples=[{"age": 31}]
    )
    context: dict[Column, Value] = Field(
        default={},
        description="Values of context columns, known only at the time of the request.",
        examples=[{"hour": 18}],
    )
    history: Annotated[list[Id], Field(max_length=1000)] | None = Field(
        default=None,
        description="The user's previous items, most recent first; replaces the stored history.",
        examples=[["7", "12"]],
    )


class Weights(Query):
    """What changes the scores of the model."""

    popularity: Dial = 1.0
    boosts: Annotated[dict[Column, Annotated[float, Field(ge=-1e6, le=1e6)]], Field(max_length=100)] = Field(
        default={},
        description="Weights of further numbers of items, which are added to their scores; the answer is exact by the "
        "sum. `/v1/info` lists their names.",
        examples=[{"margin": 0.2, "genre=noir": 0.5}],
    )


class Scoring(Weights, Caller):
    """A user, and what changes the scores of the model."""


class Shaping(Selection, Weights):
    """Which items are wanted in which order."""

    exclude_seen: bool = Field(default=True, description="Leave out the items that the user has seen.")
    rules: Annotated[list[TaggedRule], Field(max_length=MOST_RULES)] = Field(
        default=[],
        description="Quotas, duplicates, diversity and pins, applied in this order to the whole ranking; the first `n` items "
        "that remain are returned.",
        examples=[[{"kind": "quota", "column": "genre", "most": 3}, {"kind": "diversify", "relevance": 0.7}]],
    )
    channels: Channels | None = Field(
        default=None,
        description="Lists that are merged with the model's before the rules; each item then has `sources`.",
        examples=[{"lists": [{"kind": "model"}, {"kind": "list", "name": "editors", "items": ["12", "7"]}]}],
    )


class Ranking(Shaping, Scoring):
    """A user, and which items are wanted in which order."""


class Output(Listing):
    """What an answer has beside its list."""

    explain: bool = Field(
        default=False, description="Return the contributions to each score, field by field; for an `n` of at most 100."
    )
    because: int = Field(
        default=0,
        ge=0,
        le=MOST_ROWS,
        description="Number of further lists of up to `n` items each: those most similar to one of the user's latest items. No "
        "item is in two lists. The filter applies to them, rules and channels do not.",
    )


class ListRequest(Ranking, Output):
    """A request of a batch."""


Token = Annotated[str, Field(min_length=1, max_length=1 << 16)]


class RecommendRequest(ListRequest):
    """The user, what is known of them, and which items are wanted; all optional."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": "42", "n": 10},
                {"features": {"age": 31}, "history": ["7", "12"], "n": 5, "popularity": 0.5},
                {"user_id": "42", "rules": [{"kind": "dedupe", "column": "series"}, {"kind": "pin", "items": {"12": 1}}]},
            ]
        },
    )

    tokens: bool = Field(
        default=False,
        description="Return a `recommendation_id`, for interactions with the items, and the `next_page_token`.",
    )
    page_token: Token | None = Field(
        default=None, description="The `next_page_token` of an answer, whose list continues; only `n` may be given with it."
    )

    @property
    def has_tokens(self) -> bool:
        """Whether the answer has tokens."""
        return self.tokens or self.page_token is not None


class Scenario(Shaping, Output):
    """A preset of requests, one table of `scenarios.toml`."""

    description: Annotated[str, Field(max_length=1000)] = ""


class ScenarioRequest(Caller):
    """What a request adds to its scenario; all optional."""

    preset: ClassVar[frozenset[str]] = frozenset(Scenario.model_fields) - {"n", "exclude"}

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "42"}, {"history": ["7", "12"], "n": 5}]})

    n: Annotated[int, Field(ge=1, le=MOST_RESULTS)] = Field(
        default=10, description="Number of items wanted, instead of the scenario's."
    )
    exclude: Annotated[list[Id], Field(max_length=10_000)] = Field(
        default=[], description="Items to leave out, beside those of the scenario.", examples=[["3"]]
    )
    page_token: Token | None = Field(
        default=None, description="The `next_page_token` of an answer, whose list continues; only `n` may be given with it."
    )


class ItemSource(BaseModel):
    """A channel that lists an item."""

    channel: str
    rank: int = Field(description="The item's place in the channel, from 1.")


class Attributes(BaseModel):
    """Values of an item."""

    fields: dict[str, Any] = Field(
        default={}, description="Values of the columns that `fields` of the request names, without missing ones."
    )


class FieldContribution(BaseModel):
    """Contribution of some fields to a score."""

    user_field: str | None = Field(
        description="A field of the user, or 'boosts'; null for the item's own part, which is the same for all users."
    )
    item_fields: list[str] = Field(
        description="The item's field, or two for a pair of its own.", examples=[["genre"], ["genre", "price"]]
    )
    value: float


class Item(Attributes):
    """One recommended item."""

    item_id: str
    score: float = Field(
        description="The model's score without the part that is the same for all items of this user. The item's own part is "
        "multiplied by `popularity`. Boosts are added; where channels were merged, it is their sum."
    )
    sources: list[ItemSource] = Field(
        default=[], description="The channels that list the item; only if the request names channels."
    )
    contributions: list[FieldContribution] = Field(
        default=[],
        description="Contributions to the score, the largest first; they add up to it, or where channels were merged to the "
        "model's score. Only with `explain`.",
    )


class Degradation(BaseModel):
    """A part of the service that does not work properly."""

    part: str = Field(examples=["items"])
    reason: str = Field(examples=["later changes of items are not known"])


class Reply(BaseModel):
    """The body of an answer with status 200."""

    request_id: str = Field(description="The same as the X-Request-ID header.")


class Answer(Reply):
    """What an answer is based on."""

    bundle: str = Field(description="Version of the bundle that this whole answer comes from.", examples=["000001-4f2a90c1"])
    sequence: int = Field(description="The last live change of items that this answer includes; 0 before the first.")
    exact: bool = Field(description="Whether it is provably right, or from an approximate search.")
    degraded: list[Degradation] = Field(
        description="Parts of the service that this answer lacks, or has only in part; empty if all is well."
    )


class CallerAnswer(Answer):
    """An answer about a user."""

    user: Literal["known", "unknown", "anonymous"] = Field(
        description="Whether user_id is known; 'anonymous' when none was sent. "
        "An unknown user is answered from the rest of the request."
    )
    unknown: list[str] = Field(description="Columns whose value the model has never seen.")
    warnings: list[str] = Field(description="Parts of the request that had no effect.")
    user_offset: float = Field(
        description="Added to a score with popularity 1, it gives the model's full score; the same for all items."
    )


class SimilarItem(Attributes):
    """An item, and its similarity to the given one."""

    item_id: str
    score: float = Field(
        description="Cosine of the two items' vectors, -1 to 1, without the part of the score that is the same for all users."
    )


class Row(BaseModel):
    """Items like one that the user took."""

    because: str = Field(description="The item that the user took.")
    title: str = Field(
        description="In words, with the value of the first of `fields`, or the id.", examples=["Because you took Heat"]
    )
    items: list[SimilarItem] = Field(description="Most similar first.")


class RecommendResponse(CallerAnswer):
    """The best items, best first, and what they are based on."""

    items: list[Item] = Field(examples=[[{"item_id": "12", "score": 1.875}]])
    rows: list[Row] = Field(default=[], description="Further lists; only with `because`.")
    scenario: str = Field(default="", description="The scenario that was asked for; only if one was.")
    recommendation_id: str = Field(
        default="", description="Send it with interactions with these items; only with `tokens`, and of scenarios."
    )
    next_page_token: str = Field(
        default="", description="Continues the list within an hour, while the version is served; empty at its end."
    )
    exact: bool = Field(
        description="Whether these are provably the best items, or from an approximate search. "
        "With rules and channels: whether the model's ranking that they are applied to is exact."
    )


def parse_request(body: object) -> Request | RecommendRequest:
    """Return a request to the recommender from the plain values of a body.

    One whose answer has tokens is returned as it was parsed.

    Raises:
        ProblemError: They are invalid; names each fault.
    """
    if type(body) is dict and body.keys() == _USUAL:  # most requests need no further validation
        user_id, n = body["user_id"], body["n"]
        if type(user_id) is str and 0 < len(user_id) <= LONGEST_ID and type(n) is int and 0 < n <= MOST_RESULTS:
            return Request(user_id, n=n)
    found = parsed(RecommendRequest, body)
    return found if found.has_tokens else found.request()


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
    if answer.fields:
        add_fields(items, answer.fields)
    if answer.sources is not None:
        for item, sources in zip(items, answer.sources, strict=True):
            item["sources"] = sources
    if answer.contributions:
        for item, parts in zip(items, answer.contributions, strict=True):
            item["contributions"] = parts
    content: dict[str, object] = {
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
    if answer.rows:
        rows = [{"because": one.because, "title": one.title, "items": scored(one.items, one.fields)} for one in answer.rows]
        content["rows"] = rows
    return content


def scored(items: Iterable[ScoredItem], values: Iterable[Mapping[str, object]]) -> list[dict[str, Any]]:
    """Return items as values for `to_json`.

    Args:
        items: with their scores.
        values: of the columns that the request names; empty if it names none.
    """
    listed = [{"item_id": one.item_id, "score": one.score} for one in items]
    add_fields(listed, values)
    return listed


def add_fields(items: Iterable[dict[str, Any]], values: Iterable[Mapping[str, object]]) -> None:
    """Give each item of an answer the values of the columns that the request names.

    Args:
        items: as they will be written.
        values: of each; empty if the request names no columns.
    """
    for item, one in zip(items, values, strict=False):
        item["fields"] = one


MOST_REQUESTS = 256


class BatchRequest(Body):
    """Independent requests."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"requests": [{"user_id": "42", "n": 10}, {"user_id": "43", "n": 10}]}]},
    )

    requests: Annotated[list[SkipValidation[ListRequest]], Field(min_length=1, max_length=MOST_REQUESTS)] = Field(
        description="Each is answered as it would be alone; an invalid one is refused alone."
    )


class BatchAnswer(BaseModel):
    """The outcome of one of the requests."""

    status: int = Field(description="The status that it would have alone.", examples=[200])
    answer: RecommendResponse | None = Field(default=None, description="Only with status 200.")
    problem: ProblemDocument | None = Field(default=None, description="Only with another status.")


class BatchResponse(Answer):
    """An answer or a problem for each request in order, all from one snapshot."""

    answers: list[BatchAnswer]


class CatalogueEntry(BaseModel):
    """One item of the catalogue."""

    item_id: str
    features: dict[str, Any] = Field(description="Values by column, without missing ones.", examples=[{"price": 9.5}])


class ItemResponse(Answer, CatalogueEntry):
    """One item."""


class ItemsResponse(Answer):
    """One page of the catalogue, in the order of the ids."""

    items: list[CatalogueEntry]
    next_page_token: str = Field(description="The `page_token` of the next page; empty on the last one.")


class ExplainRequest(Scoring):
    """A user, and the item whose score to explain."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "42", "item_id": "12", "values": True}]})

    item_id: Id = Field(description="An item of the catalogue, whether or not it would be listed.", examples=["12"])
    values: bool = Field(default=False, description="Also return the contributions of single values.")


class TableValue(BaseModel):
    """One value of a user or an item."""

    field: str = Field(description="A history has a field for each range of lags.", examples=["genre", "history[1]"])
    value: str | None = Field(description="As text; null if `state` is missing.", examples=["noir"])
    weight: float = Field(description="Its weight in the model's input.")
    state: Literal["learnt", "unknown", "missing"] = Field(
        description="Whether the model has learnt the value, has not, or there is none."
    )


class ValuePair(BaseModel):
    """Contribution of some values to a score."""

    user: TableValue | None = Field(description="A value of the user; null for the item's own part.")
    items: list[TableValue] = Field(description="A value of the item, or two for a pair of its own.")
    value: float


class ExplainResponse(Answer):
    """The parts of the score of one item."""

    item_id: str
    score: float = Field(description="The score with which the item would be listed, including boosts.")
    contributions: list[FieldContribution] = Field(description="By fields, the largest first; they add up to the score.")
    values: list[ValuePair] | None = Field(description="By values, the largest first, at most 1000; null unless asked for.")
    rest: float = Field(description="Sum of the parts that `values` leaves out, such as boosts.")
    user_offset: float = Field(description="The part of the model's score that is the same for every item.")


class WhyNotRequest(Ranking):
    """A request for recommendations, and an item that may be missing in the answer."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user_id": "42", "item_id": "12", "n": 10, "filter": {"genre": "noir"}}]}
    )

    item_id: Id = Field(description="An item of the catalogue.", examples=["12"])


class AbsenceReason(BaseModel):
    """A reason why an item is not in a list."""

    kind: Literal["excluded", "seen", "allow", "filter", "score", "rule", "rules", "channels", "search"] = Field(
        description="`excluded`, `seen`, `allow` and `filter` make the item ineligible. `score`: enough others score higher. "
        "`rule` and `channels`: without this one rule, or without channels, it would be listed; `rules`: without all of them "
        "together. `search`: an approximate search has not found it."
    )
    where: str = Field(description="JSON pointer to the part of the request; empty if there is none.", examples=["/rules/0"])
    text: str


class WhyNotResponse(Answer):
    """The rank of an item, and what excludes it.

    The ranking is that of all eligible items by the model's score with boosts, before rules and channels; the item is counted
    among them, eligible or not. `exact` refers to the answer, not to the ranking, which is exact.
    """

    item_id: str
    listed: int | None = Field(description="The item's rank in the answer, from 1; null if it is not there.")
    reasons: list[AbsenceReason] = Field(description="All reasons why it is not listed; empty if it is.")
    score: float
    rank: int = Field(description="Its rank, from 1.")
    eligible: int = Field(description="Number of ranked items, including this one.")
    last: Item | None = Field(description="The item that it must outrank to be among the first `n`; null if there are fewer.")
    missing: float | None = Field(description="The score of `last` minus its own; null without `last`.")
    contributions: list[FieldContribution] = Field(
        description="How much more `last` gets from each pair of fields; they add up to `missing`."
    )


class ScenarioEntry(BaseModel):
    """A scenario."""

    name: str
    description: str
    settings: dict[str, Any] = Field(description="What it sets in a request.", examples=[{"n": 20, "fields": ["genre"]}])


class Attribution(BaseModel):
    """What became of the lists of one scenario and version."""

    scenario: str = Field(description="Empty for lists without a scenario.")
    bundle: str = Field(description="Version of the bundle.")
    answers: int = Field(description="Lists with a `recommendation_id` since the service started.")
    hits: int = Field(description="Interactions with that id and an item of the list.")


class ScenariosResponse(Reply):
    """All scenarios, and the hit rates of lists."""

    scenarios: list[ScenarioEntry]
    attribution: list[Attribution] = Field(description="By scenario and version, of all workers of this service.")
    degraded: list[Degradation] = Field(description="Why the file of scenarios is not in use as it is; empty if all is well.")


class Liveness(BaseModel):
    """The process is running."""

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
        description="The live bundle, if it was refused and a different one is served; null if all is well."
    )
    degraded: list[Degradation] = Field(description="Parts that do not work properly; empty if all is well.")


class Sizes(BaseModel):
    """Sizes of the bundle."""

    users: int
    items: int
    factors: int


class Columns(BaseModel):
    """Keys that requests may have."""

    features: list[str] = Field(description="Keys of `features`.")
    context: list[str] = Field(description="Keys of `context`.")
    history: bool = Field(description="Whether the model uses previous items; otherwise they are only left out.")
    filter: dict[str, str] = Field(
        description="Columns of the items that `filter` may name, and the type of their values: text, integer, float32, "
        'float64, boolean, date, time (a moment), clock (a time of day), or "list of" one of these.',
        examples=[{"genre": "text", "price": "float64", "tags": "list of text", "published": "time"}],
    )
    types: dict[str, str] = Field(description="Types of the columns that `features` and `context` name.")
    boosts: list[str] = Field(description="Keys of `boosts`.")


class IndexCertificate(BaseModel):
    """A lower bound on the recall of the index, from held-out users."""

    target: float = Field(description="Recall that was requested.")
    n: int = Field(description="Length of the lists.")
    queries: int = Field(description="Users from whom the bound was computed; 0 for an index that is exact by construction.")
    recall: float = Field(description="Mean recall for them.")
    lower: float = Field(description="The mean over all such users is at least this")
    confidence: float = Field(description="Probability with which `lower` holds.")
    met: bool = Field(description="Whether `lower` is at least `target`.")


class Info(Reply):
    """The bundle that is served."""

    name: str = Field(description="Name in the configuration of the training run.")
    bundle: str = Field(description="Version of the bundle.", examples=["000001-4f2a90c1"])
    sequence: int = Field(description="Number of the bundle, which increases with every one published to the same folder.")
    created: str = Field(description="When it was made, in UTC.")
    sizes: Sizes
    index: str = Field(description="How items are searched.", examples=["exact"])
    certificate: IndexCertificate | None = Field(description="Null if the configuration names the kind of index.")
    columns: Columns
    changes: int = Field(description="The last live change of items that is served; `sequence` in answers.")
    degraded: list[Degradation] = Field(description="What answers lack now, and why; empty if all is well.")


_LATEST = 253_402_300_799  # the last second of the year 9999


def _as_time(value: object) -> float:
    """Return seconds since 1970, from a number or a date and time with a zone."""
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
    """An item that a user interacted with."""

    user_id: Id = Field(description="An unknown user becomes known.")
    item_id: Id = Field(description="An item that the catalogue lacks is stored, and named in the answer.")
    time: Time | None = Field(
        default=None,
        description="In seconds since 1970 or as a date and time with a zone. It orders the user's items; an item without one "
        "is the latest.",
        examples=[1769882400, "2026-01-31T18:00:00Z"],
    )
    recommendation_id: Token | None = Field(
        default=None,
        description="Of the answer that the item was taken from, at most 30 days old: it counts for the hit rate of its "
        "scenario and version.",
    )


class Interactions(Body):
    """Interactions to add in order, all or none."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"interactions": [{"user_id": "42", "item_id": "7"}]}]},
    )

    interactions: Annotated[list[Interaction], Field(min_length=1, max_length=MOST_CHANGES)]


class Taken(Reply):
    """The interactions are stored, and the next request uses them."""

    change: int = Field(description="Number of the last change of users; changes of items are counted separately.")
    known: int = Field(description="How many of the users were known before.")
    unknown: list[str] = Field(description="Items that the catalogue lacks; they are stored, and used once it has them.")
    bundle: str = Field(description="Version of the bundle whose catalogue that is.", examples=["000001-4f2a90c1"])


class ItemUpsert(Body):
    """One complete item: a column that is left out is missing."""

    item_id: Id
    features: dict[Column, Value] = Field(default={}, description="Values of items-table columns.", examples=[{"price": 9.5}])


class ItemsUpsert(Body):
    """Items to insert or replace, all or none."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [{"item_id": "i9000", "features": {"price": 9.5}}]}]},
    )

    items: Annotated[list[ItemUpsert], Field(min_length=1, max_length=MOST_CHANGES)]


class ItemsDelete(Body):
    """Items to delete, all or none."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"item_ids": ["i9000"]}]})

    item_ids: Annotated[list[Id], Field(min_length=1, max_length=MOST_CHANGES)]


class Changed(Reply):
    """The change is on disk, and in all later answers of all workers."""

    sequence: int = Field(description="Answers with this sequence or a higher one include the change.")
    token: str = Field(
        description="Opaque name of the change. A request that sends it as X-Recall-Token waits until the change is served."
    )
    known: int = Field(description="How many of the items were in the catalogue before.")
    warnings: list[str] = Field(
        default=[],
        description="Values that the model cannot use well: unknown ones, and numbers far out of range.",
    )


class ServerLive(BaseModel):
    """The process is running."""

    live: Literal[True] = True


class ServerReady(BaseModel):
    """Requests are answered."""

    ready: Literal[True] = True


class ModelReady(BaseModel):
    """The model answers requests."""

    name: str
    ready: Literal[True] = True


class ServerMetadata(BaseModel):
    """Description of the server."""

    name: Literal["fm-recall"] = "fm-recall"
    version: str = Field(description="Version of the API.")
    extensions: list[str] = []


class TensorMetadata(BaseModel):
    """An input or an output."""

    name: str
    datatype: str = Field(examples=["BYTES"])
    shape: list[int] = Field(description="-1 for a length that varies.")


class ModelMetadata(BaseModel):
    """Description of the model."""

    name: str = Field(description="Name in the configuration of the training run.")
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
    name: str | None = Field(default=None, description="Name of the training run; null if `fault` is set.")
    sequence: int | None = Field(default=None, description="Number of the publication.")
    parent: int | None = Field(default=None, description="Number of the version that it was made from.")
    created: str | None = Field(default=None, description="UTC, ISO 8601.")
    kind: str | None = Field(default=None, description="Of the model.", examples=["fm"])
    index: str | None = Field(default=None, description="How items are searched.", examples=["exact"])
    users: int | None = None
    items: int | None = None
    golden: int | None = Field(default=None, description="Golden requests, whose answers are compared before it is served.")
    bytes: int | None = Field(default=None, description="Size of all its files.")
    fault: str | None = Field(default=None, description="Why its manifest cannot be read; null if it can.")


class Models(Reply):
    """All published versions."""

    models: list[Model] = Field(description="The newest first.")
    live: str | None = Field(description="The version that should be served; null if none is named.")
    served: str | None = Field(description="The version that this process answers from; null before the first.")


class Activated(Reply):
    """Another version is live and is served here; other processes follow at once."""

    version: str = Field(description="The version that is live now.", examples=[_VERSION_EXAMPLE])
    previous: str | None = Field(description="The version that was live before; null if none was.")


class ScoreRequest(Scoring, Listing):
    """A user, and the items to score."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "42", "items": ["12", "7"]}]})

    items: Annotated[list[Id], Field(min_length=1, max_length=MOST_RESULTS)] = Field(
        description="Items to score, in any order and with repeats; nothing is searched or left out."
    )


class ItemScore(Attributes):
    """The score of one item."""

    item_id: str
    score: float = Field(description="The score in a list of `/v1/recommend`.")
    probability: float | None = Field(
        description="Probability that the user takes the item, from the model's full score; null unless the model was trained "
        "with log loss and the request has no boosts and a `popularity` of 1."
    )


class ScoreResponse(CallerAnswer):
    """Scores in the order of the given items."""

    items: list[ItemScore]
    missing: list[str] = Field(description="Items that the catalogue lacks, each once.")


class UserVectorRequest(Caller):
    """A user, for the query vector."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_id": "42"}, {"features": {"age": 31}, "popularity": 0.5}]})

    popularity: Dial = 1.0


class UserVectorResponse(CallerAnswer):
    """The query vector of a request."""

    vector: list[float] = Field(description="Its inner product with an item's vector is the item's score.")


class SimilarRequest(Selection, Listing):
    """How many items are wanted, and which may be returned; all optional."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"n": 5, "filter": {"genre": "noir"}}]})


class SimilarResponse(Answer):
    """The items most similar to an item, most similar first."""

    item_id: str = Field(description="The given item, which is not among them.")
    items: list[SimilarItem]
    warnings: list[str] = Field(description="Parts of the request that had no effect.")


_Features = Annotated[dict[Column, Value], Field(max_length=1000)]
_History = Annotated[list[Id], Field(max_length=1000)]
_Seen = Annotated[list[Id], Field(max_length=10_000)]


class UserPut(Body):
    """A complete user: what is left out becomes unknown."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"features": {"age": 31}, "history": ["12", "7"], "seen": ["3"]}]},
    )

    features: _Features = Field(default={}, description="Values of users-table columns.", examples=[{"age": 31}])
    history: _History = Field(default=[], description="Items, latest first; they also count as seen.", examples=[["12", "7"]])
    seen: _Seen = Field(default=[], description="Further items that the user has seen.", examples=[["3"]])


class UserUpsert(Body):
    """Parts of a user; what is left out does not change."""

    user_id: Id
    features: _Features = Field(
        default={},
        description="Values of users-table columns, which replace the previous ones; null for missing.",
        examples=[{"age": 31}],
    )
    history: _History | None = Field(
        default=None,
        description="Items, latest first, which replace the previous ones; they also count as seen.",
        examples=[["12"]],
    )
    seen: _Seen | None = Field(
        default=None, description="Further items that the user has seen, which replace the previous ones.", examples=[["3"]]
    )


class UsersUpsert(Body):
    """Users to change or to add, all or none."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"users": [{"user_id": "u9000", "features": {"age": 31}}]}]},
    )

    users: Annotated[list[UserUpsert], Field(min_length=1, max_length=MOST_CHANGES)]


class UsersDelete(Body):
    """Users to delete, all or none."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user_ids": ["u9000"]}]})

    user_ids: Annotated[list[Id], Field(min_length=1, max_length=MOST_CHANGES)]


class UsersChanged(Reply):
    """The change is stored, and in all later answers."""

    change: int = Field(description="Number of the change of users; changes of items are counted separately.")
    known: int = Field(description="How many of the users were known before.")
    warnings: list[str] = Field(
        default=[],
        description="Values that the model cannot use well: unknown ones, and numbers far out of range.",
    )


class KnownUser(Reply):
    """What is known of a user now."""

    user_id: str
    features: dict[str, Any] = Field(description="Values by column.", examples=[{"age": 31}])
    history: list[str] = Field(description="Items, latest first.", examples=[["12", "7"]])
    seen: list[str] = Field(description="All items that the user has seen, latest first.", examples=[["12", "7", "3"]])
    bundle: str = Field(description="Version of the bundle that the changes are applied to.", examples=["000001-4f2a90c1"])
    degraded: list[Degradation] = Field(description="Why later changes are not known; empty if all is well.")


class UserEntry(BaseModel):
    """A user on a page."""

    user_id: str


class UsersPage(Reply):
    """One page of the known users, in the order of the ids."""

    users: list[UserEntry]
    next_page_token: str = Field(description="The `page_token` of the next page; empty on the last one.")
    bundle: str = Field(description="Version of the bundle that the changes are applied to.", examples=["000001-4f2a90c1"])
