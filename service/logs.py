"""Logging to standard error: one line an event, text or JSON, with the request id."""

import logging
import re
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import orjson
from typing_extensions import override

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the request that is being answered; empty outside of requests."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SET_OFF = "    | "

log = logging.getLogger("service.access")


class TextFormatter(logging.Formatter):
    """`time LEVEL message name=value ...`."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Return a record as one line, followed by the lines of a traceback."""
        parts = [_time(record), record.levelname, _plain(record.getMessage())]
        parts += [f"{name}={_plain(str(value))}" for name, value in _fields(record).items()]
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        return "\n".join([" ".join(parts), *(_SET_OFF + _plain(line) for line in trace.splitlines())])


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and further fields."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Return a record as one line, including a traceback."""
        fields: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            fields["trace"] = self.formatException(record.exc_info)
        return orjson.dumps(_encodable(fields), default=str).decode()


def logging_of(style: Literal["text", "json"]) -> dict[str, Any]:
    """Return the configuration for `logging.config.dictConfig`."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": TextFormatter if style == "text" else JsonFormatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "loggers": {name: {"handlers": ["stderr"], "level": "INFO", "propagate": False} for name in ("service", "uvicorn")},
    }


def log_request(method: str, route: str, status: int, seconds: float) -> None:
    """Log a request without its content, which is private.

    Args:
        method: of the request.
        route: declared path.
        status: of the answer.
        seconds: until it was sent.
    """
    fields = {"method": method, "route": route, "status": status, "ms": round(1000 * seconds, 3)}
    log.info("request", extra={"fields": fields})


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """Return the further fields of a record, the request's id among them."""
    fields: dict[str, object] = getattr(record, "fields", {})
    request_id = REQUEST_ID.get()
    return {**fields, "request_id": request_id} if request_id else fields


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(text: str) -> str:
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text).encode(errors="backslashreplace").decode()


def _encodable(fields: dict[str, object]) -> dict[str, object]:
    """Replace lone surrogates, which JSON cannot represent."""
    return {
        name: value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
        for name, value in fields.items()
    }


_PATH = re.compile(r"""(?<![\w./:~-])(?:/[^\s/'"`,;:()<>]+)+(/[^\s/'"`,;:()<>]*)""")
"""An absolute path of two parts or more, without a scheme or a word before its first slash."""


def without_paths(text: str, root: Path) -> str:
    """Replace absolute paths in a text by their last part.

    Args:
        text: any text, such as an error message.
        root: a folder, whose name may contain blanks; paths below it become relative to it.
    """
    for folder in sorted({str(root), str(root.absolute()), str(root.resolve())}, key=len, reverse=True):
        if folder.startswith("/") and len(folder) > 1:
            text = text.replace(folder + "/", "").replace(folder, root.name)
    return _PATH.sub(lambda match: match[1].strip("/") or "...", text)
