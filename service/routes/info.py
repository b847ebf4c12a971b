"""What is served now."""

from fastapi import FastAPI, Request
from pydantic import BaseModel, Field

from service.context import live_of, request_id_of
from service.openapi import problems
from service.security.renewing import degraded_keys
from service.wire import Degradation


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
    """A lower bound on how much the index finds of the exact lists, from users who played no part in making it."""

    target: float = Field(description="Share that was asked for.")
    n: int = Field(description="Length of the lists.")
    queries: int = Field(description="Users on whom the bound was found; 0 of an index that is exact by construction.")
    recall: float = Field(description="Mean share that was found for them.")
    lower: float = Field(description="The mean over all such users is at least this,")
    confidence: float = Field(description="with this probability.")
    met: bool = Field(description="Whether `lower` is at least `target`.")


class Info(BaseModel):
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
    request_id: str = Field(description="The same as the X-Request-ID header.")


async def info(request: Request) -> Info:
    """The bundle that is served now: its version, age, sizes, index, and the columns that a request may name."""
    live = live_of(request)
    recommender = live.serving().recommender
    catalogue = recommender.items.current()
    bundle = recommender.bundle
    manifest, encoder = bundle.manifest, bundle.encoder
    certificate = manifest.index.certificate
    columns = dict.fromkeys((*encoder.users.columns, *encoder.contexts.columns))
    degraded = (*catalogue.degraded, *live.degraded, *degraded_keys(request))
    return Info(
        name=manifest.name,
        bundle=manifest.version,
        sequence=manifest.sequence,
        created=manifest.created,
        sizes=Sizes(users=manifest.sizes.users, items=manifest.sizes.items, factors=manifest.sizes.k),
        index=manifest.index.kind,
        certificate=None if certificate is None else IndexCertificate(**certificate.model_dump(exclude={"looks"})),
        columns=Columns(
            features=[name for name in columns if name not in encoder.context_columns],
            context=[name for name in columns if name in encoder.context_columns],
            history=manifest.schema_.history is not None,
            filter=recommender.eligibility.types,
            types={name: encoder.types.users.get(name, "text") for name in columns},
            boosts=list(manifest.boosts),
        ),
        changes=catalogue.sequence,
        degraded=[Degradation(part=one.part, reason=one.reason) for one in degraded],
        request_id=request_id_of(request),
    )


def add_info_routes(app: FastAPI) -> None:
    """Answer the path that tells of the bundle."""
    app.add_api_route("/v1/info", info, operation_id="getInfo", tags=["service"], responses=problems(503))
