"""The published versions: which there are, and which one is live."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from recall.bundle import activation
from recall.bundle.manifest import MANIFEST, Manifest
from recall.bundle.versions import live_name
from recall.errors import BundleError, PublishBusyError, PublishError, RecallError, VersionMovedError, forbids_writing
from service.context import live_of, request_id_of, settings_of
from service.openapi import problems
from service.paths import id_in
from service.problems import NOT_WRITABLE, Fault, Kind, ProblemError

_VERSION_EXAMPLE = "000001-4f2a90c1"
_IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "description": 'The ETag of the version that is thought to be live, such as "000001-4f2a90c1"; nothing is changed when '
    "another one is.",
    "schema": {"type": "string"},
}
_NAME_PARAMETER = {
    "name": "version",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": f"^{activation.NAME.pattern}$"},
}


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


class Models(BaseModel):
    """All published versions."""

    models: list[Model] = Field(description="The newest first.")
    live: str | None = Field(description="The version that should be served; null when none is named.")
    served: str | None = Field(description="The version that this process answers from; null before the first.")
    request_id: str = Field(description="The same as the X-Request-ID header.")


class Activated(BaseModel):
    """Another version is live, and this process answers from it; others do within a moment."""

    version: str = Field(description="The version that is live now.", examples=[_VERSION_EXAMPLE])
    previous: str | None = Field(description="The version that was; null when none was.")
    request_id: str = Field(description="The same as the X-Request-ID header.")


async def list_models(request: Request, response: Response) -> Models:
    """All versions. The ETag is of the live one, for If-Match."""
    root = settings_of(request).bundle
    found, live = await run_in_threadpool(_look, root)
    served = _served(request)
    if live:
        response.headers["ETag"] = f'"{live}"'
    return Models(
        models=[_model(one, served) for one in found], live=live or None, served=served, request_id=request_id_of(request)
    )


async def get_model(request: Request) -> Model:
    """One version."""
    root, name = settings_of(request).bundle, _name(request)
    found, _ = await run_in_threadpool(_look, root)
    for one in found:
        if one.folder.name == name:
            return _model(one, _served(request))
    raise _no_version()


async def activate(request: Request, response: Response) -> Activated:
    """Make a version the live one: it is verified, asked its golden requests and warmed up first, and then answers."""
    name, root = _name(request), _root(request)
    try:
        await run_in_threadpool(activation.find, root, name)
    except BundleError:
        raise _no_version() from None
    return await _activate(request, response, name, await _expected(request, root))


async def roll_back(request: Request, response: Response) -> Activated:
    """Go back to the version that was live before this one; once more goes back further."""
    root = _root(request)
    live = await run_in_threadpool(live_name, root)
    expected = await _expected(request, root)
    try:
        folder = await run_in_threadpool(activation.previous, root)
    except BundleError:
        raise ProblemError(Kind.NO_WAY_BACK, "Activate a version by its name: GET /v1/models lists them.") from None
    return await _activate(request, response, folder.name, live if expected is None else expected)


def add_model_routes(app: FastAPI) -> None:
    """Answer the paths for versions."""
    bad_name = {422: "The path names no version."}
    missing = {404: "There is no such version."}
    refused = {
        409: "The version is damaged or not fit to be served, somebody is publishing, one bundle is served by itself, or "
        "nothing can be written there.",
        412: "Another version is live than If-Match says.",
        500: "The folder of versions cannot be written to.",
    }
    add = app.add_api_route
    add("/v1/models", list_models, operation_id="listModels", tags=["models"])
    add(
        "/v1/models:rollback",
        roll_back,
        methods=["POST"],
        operation_id="rollBack",
        tags=["models"],
        responses=problems(texts=refused),
        openapi_extra={"parameters": [_IF_MATCH]},
    )
    add(
        "/v1/models/{version}",
        get_model,
        operation_id="getModel",
        tags=["models"],
        responses=problems(texts={**missing, **bad_name}),
        openapi_extra={"parameters": [_NAME_PARAMETER]},
    )
    add(
        "/v1/models/{version}:activate",
        activate,
        methods=["POST"],
        operation_id="activate",
        tags=["models"],
        responses=problems(texts={**missing, **refused, **bad_name}),
        openapi_extra={"parameters": [_NAME_PARAMETER, _IF_MATCH]},
    )


async def _activate(request: Request, response: Response, name: str, expected: str | None) -> Activated:
    with _problems(settings_of(request).bundle):
        previous = await live_of(request).activate(name, expected)
    response.headers["ETag"] = f'"{name}"'
    return Activated(version=name, previous=previous or None, request_id=request_id_of(request))


@contextmanager
def _problems(root: Path) -> Iterator[None]:
    try:
        yield
    except VersionMovedError as error:
        raise ProblemError(Kind.MOVED, f"{error.what[:1].upper()}{error.what[1:]}.") from None
    except PublishBusyError:
        raise ProblemError(Kind.PUBLISHING, "Try again in a moment.", headers={"Retry-After": "1"}) from None
    except PublishError as error:
        if forbids_writing(error.__context__):
            raise ProblemError(Kind.READ_ONLY, NOT_WRITABLE) from None
        raise ProblemError(Kind.NOT_STORED, f"The folder of versions cannot be written to: {error.why}.") from None
    except RecallError as error:
        reason = str(error).replace(f"{root}/", "")
        raise ProblemError(Kind.UNFIT, "What was live stays live.", [Fault("", reason)]) from None


def _look(root: Path) -> tuple[list[activation.Version], str]:
    if (root / MANIFEST).exists():  # one bundle by itself
        try:
            manifest = Manifest.read(root)
        except BundleError as error:
            return [activation.Version(root, live=True, manifest=None, fault=str(error))], root.name
        return [activation.Version(root, live=True, manifest=manifest)], root.name
    return activation.listed(root), live_name(root)


def _model(version: activation.Version, served: str | None) -> Model:
    manifest, name = version.manifest, version.folder.name
    known: dict[str, Any] = {"fault": version.fault}
    if manifest is not None:
        known = {
            "name": manifest.name,
            "sequence": manifest.sequence,
            "parent": manifest.parent,
            "created": manifest.created,
            "kind": manifest.model.kind,
            "index": manifest.index.kind,
            "users": manifest.sizes.users,
            "items": manifest.sizes.items,
            "golden": len(manifest.golden or ()),
            "bytes": version.size,
        }
    return Model(version=name, live=version.live, served=name == served, **known)


def _served(request: Request) -> str | None:
    snapshot = live_of(request).snapshot
    return snapshot.folder.name if snapshot is not None else None


def _name(request: Request) -> str:
    name = id_in(request, "version")
    if not activation.NAME.fullmatch(name):
        fault = Fault("", "Names are letters, digits and . _ -, at most 64 of them, the first a letter or digit")
        raise ProblemError(Kind.INVALID, "The path names no version.", [fault])
    return name


def _no_version() -> ProblemError:
    return ProblemError(Kind.NO_VERSION, "GET /v1/models lists those that there are.")


def _root(request: Request) -> Path:
    root = settings_of(request).bundle
    if (root / MANIFEST).exists():
        raise ProblemError(Kind.READ_ONLY, "Serve the folder that bundles are published to, not one of them.")
    return root


async def _expected(request: Request, root: Path) -> str | None:
    """The live version, where the request says that it must be live; None where it says nothing."""
    given = request.headers.get("if-match")
    if given is None:
        return None
    live = await run_in_threadpool(live_name, root)
    if given.strip() != "*" and f'"{live}"' not in (one.strip() for one in given.split(",")):
        raise ProblemError(Kind.MOVED, f"Version {live or 'none'} is live.")
    return live
