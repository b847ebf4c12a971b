"""Health and metadata under the names of the Open Inference Protocol (KServe v2), for platforms that look there.

There is no `infer`: what is asked here is no tensor.
"""

from typing import Literal

from fastapi import FastAPI, Request
from pydantic import BaseModel, Field

from service.context import live_of
from service.openapi import problems
from service.paths import id_in, id_parameter
from service.problems import Kind, ProblemError
from service.routes.health import is_ready

_UNREADY = {503: "No bundle is served, or the service is shutting down."}


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


async def is_server_live() -> ServerLive:
    """As `/health/live`."""
    return ServerLive()


async def is_server_ready(request: Request) -> ServerReady:
    """As `/health/ready`."""
    await is_ready(request)
    return ServerReady()


async def get_server(request: Request) -> ServerMetadata:
    """What the server is."""
    return ServerMetadata(version=str(request.app.version))


async def get_model(request: Request) -> ModelMetadata:
    """What the model is that is served."""
    return ModelMetadata(
        name=_name(request),
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


async def is_model_ready(request: Request) -> ModelReady:
    """As `/health/ready`, for the model of that name."""
    await is_ready(request)
    return ModelReady(name=_name(request))


def add_kserve_routes(app: FastAPI) -> None:
    """Answer the paths that KServe asks."""
    strange = {404: "No model of that name is served.", **_UNREADY}
    name = {"parameters": [id_parameter("name")]}
    app.add_api_route("/v2", get_server, operation_id="getServerMetadata", tags=["kserve"])
    app.add_api_route("/v2/health/live", is_server_live, operation_id="isServerLive", tags=["kserve"])
    app.add_api_route(
        "/v2/health/ready", is_server_ready, operation_id="isServerReady", tags=["kserve"], responses=problems(texts=_UNREADY)
    )
    app.add_api_route(
        "/v2/models/{name}",
        get_model,
        operation_id="getModelMetadata",
        tags=["kserve"],
        responses=problems(422, texts=strange),
        openapi_extra=name,
    )
    app.add_api_route(
        "/v2/models/{name}/ready",
        is_model_ready,
        operation_id="isModelReady",
        tags=["kserve"],
        responses=problems(422, texts=strange),
        openapi_extra=name,
    )


def _name(request: Request) -> str:
    """The name of the model that is served. Raises ProblemError when the path has another one."""
    name = id_in(request, "name")
    if name != live_of(request).serving().recommender.bundle.manifest.name:
        raise ProblemError(Kind.NOT_FOUND, "No model of that name is served.")
    return name
