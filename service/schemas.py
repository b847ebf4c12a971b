"""Models of request and response bodies."""

from dataclasses import fields
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from recall import Channels, Request
from recall.serving.query import MOST_ROWS
from recall.serving.request import LARGEST_POPULARITY
from recall.serving.rerank.rules import MOST_RULES, TaggedRule

MOST_RESULTS = 1000
MOST_CHANGES = 1000
"""Items, users or interactions in one change."""
LONGEST_ID = 1024
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
    """Columns of the items in an answer."""

    fields: Annotated[list[Column], Field(max_length=100)] = Field(
        default=[],
        description="Columns of the items whose values the answer has, such as a title; `/v1/info` lists them under `filter`.",
        examples=[["genre"]],
    )


class Selection(Query):
    """Number and choice of the items that are wanted."""

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
    """The user of a request, with features, context and history."""

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
    """Settings that change the scores of the model."""

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
    """Choice and order of the items that are wanted."""

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
    """Parts of an answer besides its list."""

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


LONGEST_TOKEN = 1 << 19
"""Characters of a token, at most: half of a request body by default."""
Token = Annotated[str, Field(min_length=1, max_length=LONGEST_TOKEN)]


class RecommendRequest(
    ListRequest,
    json_schema_extra={
        "examples": [
            {"user_id": "42", "n": 10},
            {"features": {"age": 31}, "history": ["7", "12"], "n": 5, "popularity": 0.5},
            {"user_id": "42", "rules": [{"kind": "dedupe", "column": "series"}, {"kind": "pin", "items": {"12": 1}}]},
        ]
    },
):
    """The user, their known values, and conditions on the items; all optional."""

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


class ScenarioRequest(Caller, json_schema_extra={"examples": [{"user_id": "42"}, {"history": ["7", "12"], "n": 5}]}):
    """Keys that a request adds to its scenario; all optional."""

    preset: ClassVar[frozenset[str]] = frozenset(Scenario.model_fields) - {"n", "exclude"}

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
        description="The item's field, or two for a pair within the item.", examples=[["genre"], ["genre", "price"]]
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
    """Versions that an answer is based on."""

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
    """The best items in descending order, and the data they are based on."""

    items: list[Item] = Field(examples=[[{"item_id": "12", "score": 1.875}]])
    rows: list[Row] = Field(default=[], description="Further lists; only with `because`.")
    scenario: str = Field(default="", description="The requested scenario; empty without one.")
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
