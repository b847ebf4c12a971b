"""Settings of the service: command line, RECALL_... variables, or a program."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, CliPositionalArg, NoDecode, SettingsConfigDict

ANY = "*"
"""Among `hosts`: any Host header."""
PREFIX = "RECALL_"
_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")
_FORMS = {"hosts": (re.compile(r"[^\s/@]+"), "a name such as api.example.com")}


class Settings(BaseSettings):
    """Serve recommendations over HTTP; options override environment variables."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        cli_prog_name="recall serve",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    bundle: CliPositionalArg[Path] = Field(
        description="A folder of published bundles, whose live version is followed, or a single bundle."
    )
    host: str = Field(
        default="127.0.0.1", description="Address to listen on. An address that other machines can reach requires a key."
    )
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 lets the system choose.")
    uds: str | None = Field(default=None, description="Path of a Unix socket to listen on instead of host and port.")
    ssl_certfile: Path | None = Field(default=None, description="Certificate file; enables HTTPS.")
    ssl_keyfile: Path | None = Field(default=None, description="Private key file of the certificate.")
    root_path: str = Field(
        default="", description="Path prefix at which a reverse proxy serves the application, such as /recall."
    )
    workers: int = Field(default=1, ge=1, le=256, description="Number of processes; they share the index.")
    users: str = Field(
        default="sqlite",
        repr=False,
        description="Store of live changes of users: 'sqlite', a file beside the bundles, or redis://HOST:PORT/DB, which "
        "services on several machines can share. For a Redis Cluster, give one or more nodes: "
        "redis://HOST:PORT,HOST:PORT.",
    )
    exported_users: Literal["bundle", "redis"] = Field(
        default="bundle",
        description="Where to read the users that a version was trained with: from its file, or from the Redis of "
        "`users`, into which `recall users load` has loaded them. With redis, versions are downloaded from "
        "the depot without the file.",
    )
    items: str = Field(
        default="sqlite",
        repr=False,
        description="Log of live changes of items: 'sqlite', a file beside the bundles, or redis://HOST:PORT/DB, which "
        "services on several machines can share. Commands such as `recall compact` read RECALL_ITEMS.",
    )
    depot: str = Field(
        default="",
        description="Bucket that shares versions between machines: s3://BUCKET/PREFIX, whose live version is followed. "
        "Address and credentials are read from AWS_... variables. Commands such as `recall train` read "
        "RECALL_DEPOT.",
    )
    users_seconds: float = Field(default=0.02, gt=0, description="Maximum time in seconds that a request waits for Redis.")
    token_key: str | None = Field(
        default=None,
        repr=False,
        min_length=16,
        description="Secret that signs tokens, the same on all machines; by default a generated key in the folder of bundles.",
    )
    keys: Path | None = Field(default=None, description="File with hashes of API keys, as printed by `recall key new`.")
    insecure: bool = Field(default=False, description="Listen on any address without a key.")
    hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Host names, separated by commas, that are accepted besides localhost; * for any."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins, separated by commas, whose web pages may send requests, such as https://shop.example; * for any.",
    )
    rate: float | None = Field(
        default=None,
        gt=0,
        lt=1e6,
        description="Requests a second that each key may send, and all requests without a key together.",
    )
    docs: bool = Field(default=True, description="Serve /docs and /openapi.json.")
    page: bool = Field(default=True, description="Serve the web page at /.")
    images: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Origins, separated by commas, such as https://img.example, of images that the web page shows. Their "
        "addresses are in a column of the items. Default: none.",
    )
    logs: Literal["text", "json"] = Field(default="text", description="Format of the log.")
    access: float = Field(default=0.0, ge=0, le=1, description="Share of the requests that are logged, 0 to 1.")
    otel: bool = Field(default=False, description="Trace requests with OpenTelemetry, configured by its OTEL_... variables.")
    max_body: int = Field(default=1 << 20, ge=1, description="Largest request body in bytes.")
    patience: int = Field(
        default=10, ge=1, description="Time limit in seconds for a request body to arrive, and for an idle connection."
    )
    waiting: int = Field(default=128, ge=1, description="Length of the queue of searches.")
    standing: int = Field(default=32, ge=1, description="Length of the queue if it has not been empty for a tenth of a second.")
    age: float = Field(default=0.5, gt=0, description="Maximum time in seconds that a request waits in the queue.")
    connections: int = Field(
        default=4096, ge=1, description="Connections of one process; requests on further connections get 503."
    )
    shadow: float = Field(
        default=0.001,
        ge=0,
        le=1,
        description="Share of requests repeated with exact search, to measure the recall of the index.",
    )
    poll: float = Field(default=1.0, gt=0, description="Seconds between two checks for a newer version.")
    follow: float = Field(default=0.02, gt=0, description="Seconds between two reads of changes by other processes.")
    write_back: float = Field(
        default=5.0, gt=0, description="Seconds after which changes that are missing in a replaced log are written back to it."
    )
    drain: float = Field(
        default=1.0, ge=0, description="Seconds between SIGTERM and the end of listening; /health/ready answers 503 meanwhile."
    )
    grace: int = Field(default=10, ge=1, description="Seconds that requests in flight then have to finish.")
    silence: float = Field(default=15.0, ge=2, description="Seconds after which a worker that does not answer is restarted.")
    wait: bool = Field(default=True, description="Start even if the folder contains no version yet.")

    @field_validator("hosts", "cors_origins", "images", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("images", "cors_origins", "hosts")
    @classmethod
    def _check_form(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        pattern, form = _FORMS.get(str(info.field_name), (_ORIGIN, "an origin such as https://shop.example"))
        for one in value:
            if not (pattern.fullmatch(one) or (one == ANY and info.field_name == "cors_origins")):
                raise ValueError(f"{one!r} is not {form}")
        return value

    @field_validator("root_path")
    @classmethod
    def _normalise(cls, value: str) -> str:
        return "/" + value.strip("/") if value.strip("/") else ""

    def environment(self) -> dict[str, str]:
        """Return environment variables that give another process the same settings."""
        values: dict[str, Any] = self.model_dump(exclude_none=True)
        return {
            PREFIX + name.upper(): ",".join(value) if isinstance(value, tuple) else str(value) for name, value in values.items()
        }
