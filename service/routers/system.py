"""Information, health, metrics, and the Open Inference Protocol (KServe v2).

The protocol's `infer` is not offered, because requests are not tensors.
"""

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response

from service.dependencies import READ, PathId, live_of, request_id_of
from service.errors import Kind, ProblemError, problems
from service.schemas import (
    Columns,
    Degradation,
    IndexCertificate,
    Info,
    Liveness,
    ModelMetadata,
    ModelReady,
    Readiness,
    RefusedBundle,
    ServerLive,
    ServerMetadata,
    ServerReady,
    Sizes,
    TensorMetadata,
)

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
        ),
        changes=catalogue.sequence,
        degraded=[Degradation(part=one.part, reason=one.reason) for one in degraded],
        request_id=request_id_of(request),
    )


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
