"""Logging: one line for each event to standard error, as text or as JSON, with the id of its request."""

import logging
import re
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import orjson

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that is being answered; empty outside of one."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SET_OFF = "    | "

log = logging.getLogger("service.access")


class TextFormatter(logging.Formatter):
    """`time LEVEL message name=value ...`."""

    def format(self, record: logging.LogRecord) -> str:
        """One record; the lines of a trace follow it."""
        told = {**_fields(record), **_request()}
        parts = [_time(record), record.levelname, _plain(record.getMessage())]
        parts += [f"{name}={_plain(str(value))}" for name, value in told.items()]
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        return "\n".join([" ".join(parts), *(_SET_OFF + _plain(line) for line in trace.splitlines())])


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and whatever belongs to the event."""

    def format(self, record: logging.LogRecord) -> str:
        """One record, a trace and all."""
        told: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_request(),
            **_fields(record),
        }
        if record.exc_info:
            told["trace"] = self.formatException(record.exc_info)
        return orjson.dumps(_encodable(told), default=str).decode()


def logging_of(style: Literal["text", "json"]) -> dict[str, Any]:
    """What `logging.config.dictConfig` is given."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": TextFormatter if style == "text" else JsonFormatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "loggers": {name: {"handlers": ["stderr"], "level": "INFO", "propagate": False} for name in ("service", "uvicorn")},
    }


def log_request(method: str, route: str, status: int, seconds: float) -> None:
    """A request was answered; what it asked is nobody's business."""
    fields = {"method": method, "route": route, "status": status, "ms": round(1000 * seconds, 3)}
    log.info("request", extra={"fields": fields})


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, dict) else {}


def _request() -> dict[str, str]:
    request_id = REQUEST_ID.get()
    return {"request_id": request_id} if request_id else {}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(text: str) -> str:
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text).encode(errors="backslashreplace").decode()


def _encodable(told: dict[str, object]) -> dict[str, object]:
    """Text without lone surrogates, which JSON cannot hold."""
    return {
        name: value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
        for name, value in told.items()
    }


_PATH = re.compile(r"""(?<![\w./:~-])(?:/[^\s/'"`,;:()<>]+)+(/[^\s/'"`,;:()<>]*)""")
"""An absolute path of two parts or more; what has a scheme or a word before its first slash is none."""


def without_paths(text: str, root: Path) -> str:
    """Replace absolute paths in a text by their last part.

    Args:
        text: any text, such as an error message.
        root: a folder that may hold blanks in its name; paths below it are shown relative to it.
    """
    for folder in sorted({str(root), str(root.absolute()), str(root.resolve())}, key=len, reverse=True):
        if folder.startswith("/") and len(folder) > 1:
            text = text.replace(folder + "/", "").replace(folder, root.name)
    return _PATH.sub(lambda match: match[1].strip("/") or "...", text)
