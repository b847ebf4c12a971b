"""Information, health, metrics, and the Open Inference Protocol (KServe v2).

The protocol's `infer` is not offered, because requests are not tensors.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from recall import DataError
from recall.config.schema import Side
from recall.evaluation.html.charts import Section
from recall.features.encoder import FeatureEncoder
from recall.serving.batch import title_in
from service.bundles import Snapshot
from service.dependencies import READ, PathId, live_of, request_id_of
from service.errors import Kind, ProblemError, problems
from service.logs import without_paths
from service.schemas import Degradation, Reply


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
    user_id: str = Field(description="The column that holds the ids of users.", examples=["user_id"])
    item_id: str = Field(description="The column of the items that holds their ids.", examples=["item_id"])
    title: str | None = Field(description="The column of the items that holds titles, by its name; null if there is none.")
    user_title: str | None = Field(description="The same of the users; null if there is none.")
    values: dict[str, list[str]] = Field(
        description="Values of columns in `features` and `context` that the model knows, the commonest first, at most 50."
    )
    item_values: dict[str, list[str]] = Field(description="The same of columns of the items.", examples=[{"genre": ["noir"]}])


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


class Charts(Reply):
    """Charts of the served bundle."""

    bundle: str = Field(description="Version of the bundle.", examples=["000001-4f2a90c1"])
    sections: list[Section] = Field(description="In the order of a report; one without data says why in `missing`.")
    fault: str = Field(description="Why the evaluation that is kept is not shown; empty if all is well.")


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


_VALUES = 50  # known values of one column
router = APIRouter(**READ)
health = APIRouter()
UNREADY = problems(texts={503: "No bundle is served, or the service is shutting down."})
STRANGE = problems(422, texts={404: "No model of that name is served."})


@router.get("/v1/info", tags=["service"])
async def get_info(request: Request) -> Info:
    """Describe the served bundle: version, age, sizes, index, columns of requests."""
    live = live_of(request)
    recommender = live.serving().recommender
    catalogue = recommender.items.current()
    manifest, encoder = recommender.bundle.manifest, recommender.bundle.encoder
    certificate = manifest.index.certificate
    columns = dict.fromkeys((*encoder.users.columns, *encoder.contexts.columns))
    degraded = (*live.lacking(), *request.app.state.keys.degraded)
    return Info(
        name=manifest.name,
        bundle=manifest.version,
        sequence=manifest.sequence,
        created=manifest.created,
        sizes=Sizes(users=manifest.sizes.users, items=manifest.sizes.items, factors=manifest.sizes.k),
        index=manifest.index.kind,
        certificate=None if certificate is None else IndexCertificate.model_validate(certificate, from_attributes=True),
        columns=Columns(
            features=[name for name in columns if name not in encoder.context_columns],
            context=[name for name in columns if name in encoder.context_columns],
            history=manifest.schema_.history is not None,
            filter=recommender.eligibility.types,
            types={name: encoder.types.users.get(name, "text") for name in columns},
            boosts=list(manifest.boosts),
            user_id=encoder.schema.user_id,
            item_id=encoder.schema.item_id,
            title=title_in(recommender),
            user_title=recommender.users.title,
            values=_known_values(encoder, "user"),
            item_values=_known_values(encoder, "item"),
        ),
        changes=catalogue.sequence,
        degraded=[Degradation(part=one.part, reason=one.reason) for one in degraded],
        request_id=request_id_of(request),
    )


def _known_values(encoder: FeatureEncoder, side: Side) -> dict[str, list[str]]:
    """Return the commonest values of each column that has a vocabulary."""
    schema = encoder.schema
    return {
        one.column: one.vocabulary.values.head(_VALUES).to_list()
        for name, one in encoder.columns.items()
        if schema.fields[name].side == side and one.column not in (None, schema.user_id, schema.item_id)
        if one.vocabulary is not None and one.column is not None
    }


@router.get("/v1/charts", tags=["service"], response_model=Charts)
async def get_charts(request: Request) -> Response:
    """Return the charts of a report: training, fields, items, index.

    Quality, cold start and calibration are among them once `recall evaluate --keep` has evaluated the version.
    """
    live = live_of(request)
    with live.serving() as snapshot:
        async with snapshot.charting:
            content = await run_in_threadpool(_charts, snapshot, live.settings.bundle, request_id_of(request))
    return Response(content, media_type="application/json")


def _charts(snapshot: Snapshot, root: Path, request_id: str) -> str:
    """Return `Charts` as JSON, which takes too long for the event loop."""
    # imported on first use: a service without charts does not need these modules
    from recall.evaluation.html.sections import sections
    from recall.evaluation.html.subject import Subject, Subjects
    from recall.evaluation.report import kept_evaluation

    if snapshot.subject is None:
        snapshot.subject = Subject.of(snapshot.recommender, timed=False)
    evaluation, fault = None, ""
    try:
        evaluation = kept_evaluation(snapshot.folder)
    except (DataError, OSError) as error:
        fault = without_paths(str(error), root)
    subject = replace(snapshot.subject.within(snapshot.recommender.items.current()), evaluation=evaluation)
    drawn = {"sections": [asdict(one) for one in sections(Subjects([subject], {}))], "fault": fault}
    version = snapshot.recommender.bundle.manifest.version
    return Charts.model_validate({"bundle": version, "request_id": request_id, **drawn}).model_dump_json()


@router.get(
    "/metrics",
    tags=["service"],
    response_class=Response,
    responses={200: {"description": "Every metric.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def get_metrics(request: Request) -> Response:
    """Return every metric of all workers in the format of Prometheus."""
    live = live_of(request)
    live.measure()
    body, media_type = await run_in_threadpool(live.meters.exposition, request.headers.get("accept", ""))
    return Response(body, media_type=media_type)


@health.get("/health/live", tags=["service"])
async def is_live() -> Liveness:
    """Return whether the process is running. Restart it if this fails."""
    return Liveness()


@health.get("/health/ready", tags=["service"], responses=UNREADY)
async def is_ready(request: Request) -> Readiness:
    """Return whether requests should be sent here.

    It stays ready if a newer bundle was refused.
    """
    live = live_of(request)
    if live.draining:
        raise ProblemError(Kind.DRAINING, "Send requests elsewhere.")
    refusal = live.refusal
    return Readiness(
        bundle=live.serving().recommender.bundle.manifest.version,
        refused=RefusedBundle(bundle=refusal.folder.name, reason=refusal.reason) if refusal else None,
        degraded=[Degradation(part=one.part, reason=one.reason) for one in (*live.lacking(), *request.app.state.keys.degraded)],
    )


@router.get("/v2", tags=["kserve"])
async def get_server_metadata(request: Request) -> ServerMetadata:
    """Describe the server."""
    return ServerMetadata(version=str(request.app.version))


@health.get("/v2/health/live", tags=["kserve"])
async def is_server_live() -> ServerLive:
    """Return whether the server is live, like `/health/live`."""
    return ServerLive()


@health.get("/v2/health/ready", tags=["kserve"], responses=UNREADY)
async def is_server_ready(request: Request) -> ServerReady:
    """Return whether the server is ready, like `/health/ready`."""
    await is_ready(request)
    return ServerReady()


@router.get("/v2/models/{name:path}/ready", tags=["kserve"], responses=STRANGE)
async def is_model_ready(request: Request, name: PathId) -> ModelReady:
    """Return whether the model of that name is ready, like `/health/ready`."""
    await is_ready(request)
    return ModelReady(name=_known(request, name))


@router.get("/v2/models/{name:path}", tags=["kserve"], responses=STRANGE)
async def get_model_metadata(request: Request, name: PathId) -> ModelMetadata:
    """Describe the served model."""
    return ModelMetadata(
        name=_known(request, name),
        versions=[live_of(request).serving().recommender.bundle.manifest.version],
        inputs=[
            TensorMetadata(name="user_id", datatype="BYTES", shape=[1]),
            TensorMetadata(name="n", datatype="INT64", shape=[1]),
        ],
        outputs=[
            TensorMetadata(name="item_id", datatype="BYTES", shape=[-1]),
            TensorMetadata(name="score", datatype="FP32", shape=[-1]),
        ],
    )


def _known(request: Request, name: str) -> str:
    """Return the name of the served model; raise ProblemError for another."""
    if name != live_of(request).serving().recommender.bundle.manifest.name:
        raise ProblemError(Kind.NO_MODEL, "No model of that name is served.")
    return name
