"""What a running service is told: which bundle, where to listen, and how long to wait for slow clients."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """Everything that can be set about the service; frozen once made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: Path
    """A folder of published bundles with a CURRENT file, which is watched, or one bundle's own folder."""
    host: str = "127.0.0.1"
    """Address to listen on. The service asks nobody for a key: put it on other addresses behind something that does."""
    users: str = Field(default="sqlite", repr=False)
    """Where changes of users are kept: "sqlite" for a file beside the bundles, or the address of a Redis, which may hold a
    password."""
    users_seconds: float = Field(default=0.02, gt=0)
    """Longest time that a request waits for Redis, before it is answered from what the bundle holds of its user."""
    port: int = Field(default=8000, ge=0, le=65535)
    """0 lets the system choose."""
    docs: bool = True
    """Serve /docs and /openapi.json."""
    max_body: int = Field(default=1 << 20, ge=1)
    """Largest request body in bytes."""
    poll: float = Field(default=1.0, gt=0)
    """Seconds between two looks at CURRENT."""
    follow: float = Field(default=0.02, gt=0)
    """Seconds between two looks for item changes of other processes; those made here are served at once."""
    patience: int = Field(default=10, ge=1)
    """Seconds that a client may take to send a request's headers, or its body, or leave a connection idle."""
    waiting: int = Field(default=64, ge=1)
    """Requests that may wait for a search thread; more are answered 503 with Retry-After."""
    drain: float = Field(default=1.0, ge=0)
    """Seconds between SIGTERM, when /health/ready turns 503, and the end of listening."""
    grace: int = Field(default=10, ge=1)
    """Seconds that requests in flight have to finish after that."""
