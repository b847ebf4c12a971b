"""Published versions, and which one is live."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi import Path as PathParameter
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from recall.bundle import activation
from recall.bundle.manifest import MANIFEST, Manifest
from recall.bundle.versions import live_name
from recall.errors import BundleError, PublishBusyError, PublishError, RecallError, VersionMovedError, forbids_writing
from service.dependencies import CHANGE, READ, live_of, request_id_of
from service.errors import NOT_WRITABLE, FaultDocument, Kind, ProblemError, problems
from service.logs import without_paths
from service.schemas import Reply

_VERSION_EXAMPLE = "000001-4f2a90c1"
_ORIGIN = {"config", "metrics", "schema_", "sizes", "model", "index", "parity", "data_hash", "seed", "libraries"}


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


class ModelDetails(Model):
    """One published version, and where it comes from."""

    origin: dict[str, Any] = Field(
        description="Parts of its manifest: `config`, `metrics` of its training with curves, `schema`, `sizes`, `model`, "
        "`index`, `parity`, `data_hash`, `seed`, `libraries`; empty if `fault` is set."
    )


class Models(Reply):
    """All published versions."""

    models: list[Model] = Field(description="The newest first.")
    live: str | None = Field(description="The version that should be served; null if none is named.")
    served: str | None = Field(description="The version that this process answers from; null before the first.")


class Activated(Reply):
    """Another version is live and is served here; other processes follow at once."""

    version: str = Field(description="The version that is live now.", examples=[_VERSION_EXAMPLE])
    previous: str | None = Field(description="The version that was live before; null if none was.")


reads, changes = APIRouter(tags=["models"], **READ), APIRouter(tags=["models"], **CHANGE)
MISSING = problems(texts={404: "There is no such version."})
MOVED = problems(texts={412: "The live version is not the one in If-Match."})

Version = Annotated[str, PathParameter(pattern=f"^{activation.NAME.pattern}$", description="Name of a version.")]
IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        description='The ETag of the version that should be live, such as "000001-4f2a90c1"; nothing is changed when '
        "a different one is.",
    ),
]


def _root(request: Request) -> Path:
    root = live_of(request).settings.bundle
    if (root / MANIFEST).exists():
        raise ProblemError(Kind.READ_ONLY, "Serve the folder that bundles are published to, not one of them.")
    return root


async def _expected(request: Request, if_match: IfMatch = None) -> str | None:
    """Return the live version that If-Match requires; None without the header."""
    if if_match is None:
        return None
    live = await run_in_threadpool(live_name, _root(request))
    if if_match.strip() != "*" and f'"{live}"' not in (one.strip() for one in if_match.split(",")):
        raise ProblemError(Kind.MOVED, f"Version {live or 'none'} is live.")
    return live


Root = Annotated[Path, Depends(_root)]
Expected = Annotated[str | None, Depends(_expected)]


@reads.get("/v1/models")
async def list_models(request: Request, response: Response) -> Models:
    """Return all versions. The ETag is that of the live one, for If-Match."""
    found, live, served = await _found(request)
    if live:
        response.headers["ETag"] = f'"{live}"'
    models = [Model(**_known(one, served)) for one in found]
    return Models(models=models, live=live or None, served=served, request_id=request_id_of(request))


@reads.get("/v1/models/{version}", responses=MISSING)
async def get_model(request: Request, version: Version) -> ModelDetails:
    """Return one version, and where it comes from."""
    found, _, served = await _found(request)
    for one in found:
        if one.folder.name == version:
            origin = {} if one.manifest is None else one.manifest.model_dump(mode="json", by_alias=True, include=_ORIGIN)
            return ModelDetails(**_known(one, served), origin=origin)
    raise ProblemError(Kind.NO_VERSION, "GET /v1/models lists the versions.")


@changes.post("/v1/models/{version}:activate", responses={**MISSING, **MOVED})
async def activate(request: Request, response: Response, version: Version, _: Root, expected: Expected) -> Activated:
    """Make a version live, after verifying it and warming it up."""
    return await _activate(request, response, version, expected)


@changes.post("/v1/models:rollback", responses=MOVED)
async def roll_back(request: Request, response: Response, root: Root, expected: Expected) -> Activated:
    """Return to the version that was live before; repeat to go back further."""
    live = await run_in_threadpool(live_name, root)
    try:
        folder = await run_in_threadpool(activation.previous, root)
    except BundleError:
        raise ProblemError(Kind.NO_WAY_BACK, "Activate a version by its name; GET /v1/models lists them.") from None
    return await _activate(request, response, folder.name, live if expected is None else expected)


async def _activate(request: Request, response: Response, name: str, expected: str | None) -> Activated:
    live = live_of(request)
    try:
        previous = await live.activate(name, expected)
    except VersionMovedError as error:
        raise ProblemError(Kind.MOVED, f"{error.what[:1].upper()}{error.what[1:]}.") from None
    except PublishBusyError:
        raise ProblemError(Kind.PUBLISHING, "Try again in a moment.", headers={"Retry-After": "1"}) from None
    except PublishError as error:
        if forbids_writing(error.__context__):
            raise ProblemError(Kind.READ_ONLY, NOT_WRITABLE) from None
        raise ProblemError(Kind.NOT_STORED, f"{without_paths(str(error), live.settings.bundle)}.") from None
    except RecallError as error:
        fault = FaultDocument("", without_paths(str(error), live.settings.bundle))
        raise ProblemError(Kind.UNFIT, "The live version stays live.", [fault]) from None
    response.headers["ETag"] = f'"{name}"'
    return Activated(version=name, previous=previous or None, request_id=request_id_of(request))


async def _found(request: Request) -> tuple[list[activation.Version], str, str | None]:
    """Return all versions, and the names of the live and of the served one."""
    live = live_of(request)
    found, name = await run_in_threadpool(_versions, live.settings.bundle)
    return found, name, live.snapshot.folder.name if live.snapshot is not None else None


def _versions(root: Path) -> tuple[list[activation.Version], str]:
    """Return all versions of a root or the only bundle, and the live one's name."""
    if not (root / MANIFEST).exists():
        return activation.list_versions(root), live_name(root)
    try:
        return [activation.Version(root, live=True, manifest=Manifest.read(root))], root.name
    except BundleError as error:
        return [activation.Version(root, live=True, manifest=None, fault=str(error))], root.name


def _known(version: activation.Version, served: str | None) -> dict[str, Any]:
    """Return the fields of `Model`."""
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
    return {"version": name, "live": version.live, "served": name == served, **known}
