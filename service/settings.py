"""What a running service is told: which bundle, where to listen, and how long to wait for slow clients."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ANY = "*"
"""Among `hosts`: whatever the Host header says."""


class Settings(BaseModel):
    """Everything that can be set about the service; frozen once made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: Path
    """A folder of published bundles with a CURRENT file, which is watched, or one bundle's own folder."""
    host: str = "127.0.0.1"
    """Address to listen on. Where others than this machine can ask, a key is needed, or `insecure`."""
    users: str = Field(default="sqlite", repr=False)
    """Where changes of users are kept: "sqlite" for a file beside the bundles, or the address of a Redis, which may hold a
    password."""
    users_seconds: float = Field(default=0.02, gt=0)
    """Longest time that a request waits for Redis, before it is answered from what the bundle holds of its user."""
    port: int = Field(default=8000, ge=0, le=65535)
    """0 lets the system choose."""
    docs: bool = True
    """Serve /docs and /openapi.json."""
    page: bool = True
    """Serve the web page at /."""
    max_body: int = Field(default=1 << 20, ge=1)
    """Largest request body in bytes."""
    poll: float = Field(default=1.0, gt=0)
    """Seconds between two looks at CURRENT."""
    follow: float = Field(default=0.02, gt=0)
    """Seconds between two looks for item changes of other processes; those made here are served at once."""
    write_back: float = Field(default=5.0, gt=0)
    """Seconds after which changes that the journal has lost are written back, unless a change comes before: whoever replaces
    the file may not be done with it."""
    patience: int = Field(default=10, ge=1)
    """Seconds that a client may take to send a request's headers, or its body, or leave a connection idle."""
    keys: Path | None = None
    """A file with hashes of keys; see `service.security.keys` for it, and for keys in the environment."""
    insecure: bool = False
    """Listen where others can ask although no key is set, because something in front of the service asks for one."""
    hosts: tuple[str, ...] = ()
    """Names that requests may have in their Host header besides those of this machine for itself; "*" for any. When none is
    given, any will do where a key is asked for; without a key only addresses and names without a dot do where other machines
    can ask, and only loopback names elsewhere. See `service.security.hosts`."""
    rate: float | None = Field(default=None, gt=0, lt=1e6)
    """Requests a second of each key, and of all who ask without one; None does not limit."""
    workers: int = Field(default=1, ge=1, le=256)
    """Processes that answer; they share the port, the mapped index and what is changed."""
    silence: float = Field(default=15.0, ge=2)
    """Seconds that one of several workers may do nothing at all before it is killed and started anew; bundles load beside."""
    waiting: int = Field(default=128, ge=1)
    """Requests that may wait for a search for a moment; more are answered 503 with Retry-After."""
    standing: int = Field(default=32, ge=1)
    """Requests that may wait when so many have waited for more than a tenth of a second."""
    age: float = Field(default=0.5, gt=0)
    """Seconds that a request waits for a search at most, before it is answered 503."""
    connections: int = Field(default=4096, ge=1)
    """Connections that one process holds open; more are answered 503 and closed."""
    logs: Literal["text", "json"] = "text"
    """How events are logged."""
    access: float = Field(default=0.0, ge=0, le=1)
    """Share of the requests that are logged, by route, status and time."""
    otel: bool = False
    """Trace requests with OpenTelemetry; see `service.tracing`."""
    shadow: float = Field(default=0.001, ge=0, le=1)
    """Share of the requests that are answered once more, exactly and off the path, to tell how much the index finds."""
    drain: float = Field(default=1.0, ge=0)
    """Seconds between SIGTERM, when /health/ready turns 503, and the end of listening."""
    grace: int = Field(default=10, ge=1)
    """Seconds that requests in flight have to finish after that."""
