"""Generate the reference pages of the documentation from the code.

mkdocs runs this as a hook: a comment `<!-- generated: NAME -->` in a page is replaced with the text of GENERATED[NAME].

    python scripts/docs_reference.py NAME    print one of them
"""

import logging
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import typer
from typer.cli import get_docs_for_click
from typer.main import get_command

from recall import errors
from recall.cli.app import application
from recall.cli.output import CANNOT_WRITE, UNAVAILABLE
from recall.cli.train import REJECTED
from recall.config.docs import markdown
from service.app import create_app
from service.config import PREFIX, Settings
from service.errors import Kind
from service.metrics import Metrics

ROOT = Path(__file__).resolve().parents[1]
logging.getLogger("pymdownx").setLevel(logging.WARNING)  # mkdocs logs at the root, --strict counts its warnings
_MARK = re.compile(r"<!-- generated: ([\w-]+) -->")
_METHODS = ("get", "put", "post", "delete")
_EXIT_CODES = {
    0: "success",
    1: "failure",
    2: "wrong usage: an unknown command, option or value",
    REJECTED: "published, and not activated: it is worse than the live version (`--activate if-not-worse`)",
    65: "invalid data, bundle, index or request",
    UNAVAILABLE: "a dependency is not installed, or a service or the user store does not answer",
    CANNOT_WRITE: "a file, version or change cannot be written, such as on a full disk",
    74: "a log of changes cannot be read or written",
    75: "another process is writing or publishing; try again",
    77: "changes are not permitted: a read-only file system, or missing rights",
    78: "invalid configuration",
    130: "interrupted (SIGINT)",
    143: "terminated (SIGTERM)",
}


def on_page_markdown(text: str, **_: object) -> str:
    """Replace the marks of a page; called by mkdocs."""
    return _MARK.sub(lambda mark: GENERATED[mark[1]](), text)


def command_line() -> str:
    """Return every command with its arguments and options."""
    command = get_command(application())
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="recall", title="recall")
    text = text[text.index("## `recall ") :]
    # the service parses its own options: they are listed on this page as settings
    return re.sub(
        r"(## `recall serve`\n.*?)\*\*Usage\*\*.*?(?=\n## )", r"\1See [below](#recall-serve-options).\n", text, flags=re.S
    )


def service_options() -> str:
    """Return the settings of `recall serve` with their environment variables."""
    rows = []
    for name, field in Settings.model_fields.items():
        option = "BUNDLE" if name == "bundle" else "--" + name.replace("_", "-")
        default = "required" if field.is_required() else _value(field.default)
        rows.append(
            (f"`{option}`", f"`{PREFIX}{name.upper()}`", _annotation(field.annotation), default, field.description or "")
        )
    return _table(("option", "variable", "type", "default", "meaning"), rows)


def http() -> str:
    """Return every operation and schema of the OpenAPI document."""
    with tempfile.TemporaryDirectory() as folder:
        document = create_app(Settings(bundle=Path(folder))).openapi()
    parts = []
    for path, operations in document["paths"].items():
        parts += [_operation(path, method, operations[method]) for method in _METHODS if method in operations]
    parts.append("## Schemas\n")
    parts += [_schema(name, schema) for name, schema in document["components"]["schemas"].items()]
    return "\n\n".join(parts)


def metrics() -> str:
    """Return every metric of the service with its type and labels."""
    rows = []
    for metric in Metrics().registry.collect():
        if not metric.name.startswith("recall_"):
            continue
        labels = {label for sample in metric.samples for label in sample.labels} - {"le"}
        total = "_total" if metric.type == "counter" else ""
        rows.append(
            (f"`{metric.name}{total}`", metric.type, ", ".join(f"`{one}`" for one in sorted(labels)), metric.documentation)
        )
    return _table(("metric", "type", "labels", "meaning"), sorted(rows))


def exit_codes() -> str:
    """Return the exit codes of the command line."""
    found: dict[int, list[str]] = {}
    for error in _errors():
        found.setdefault(error.exit_code, []).append(f"`{error.__name__}`")
    rows = []
    for code in sorted({*found, *_EXIT_CODES}):
        rows.append((f"`{code}`", _EXIT_CODES.get(code, ""), ", ".join(found.get(code, []))))
    return _table(("code", "meaning", "exceptions"), rows)


def exceptions() -> str:
    """Return every exception of the library with its base and exit code."""
    rows = []
    for error in _errors():
        base = error.__mro__[1].__name__
        rows.append((f"`{error.__name__}`", f"`{base}`", f"`{error.exit_code}`", _first_line(error.__doc__)))
    return _table(("exception", "base", "exit code", "meaning"), rows)


def problems() -> str:
    """Return every kind of problem document of the HTTP API."""
    return _table(("status", "type", "title"), ((f"`{kind.status}`", f"`{kind.type}`", kind.title) for kind in Kind))


def bundle_format() -> str:
    """Return the specification of the bundle format without its heading."""
    text = (ROOT / "recall" / "bundle" / "FORMAT.md").read_text(encoding="utf-8")
    return text.partition("\n")[2]


GENERATED = {
    "command-line": command_line,
    "service-options": service_options,
    "configuration": markdown,
    "http": http,
    "metrics": metrics,
    "exit-codes": exit_codes,
    "exceptions": exceptions,
    "problems": problems,
    "bundle-format": bundle_format,
}


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    parts = [
        f"### {method.upper()} {path} {{ #{operation['operationId']} }}",
        operation.get("description", operation["summary"]),
    ]
    parameters = operation.get("parameters", ())
    if parameters:
        described = []
        for one in parameters:
            schema = one["schema"]
            default = "required" if one["required"] else _value(schema.get("default"))
            described.append((f"`{one['name']}`", one["in"], _type(schema), default, one.get("description", "")))
        parts.append(_table(("parameter", "in", "type", "default", "meaning"), described))
    if "requestBody" in operation:
        parts.append(f"Body: {_type(_content(operation['requestBody']))}")
    rows = []
    for status, answer in sorted(operation["responses"].items()):
        rows.append((f"`{status}`", _type(_content(answer)), answer["description"]))
    return "\n\n".join([*parts, _table(("status", "answer", "meaning"), rows)])


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    parts = [f"### {name} {{ #schema-{name.lower()} }}", schema.get("description", "")]
    rows = []
    for key, one in schema.get("properties", {}).items():
        default = "required" if key in schema.get("required", ()) else _value(one.get("default"))
        rows.append((f"`{key}`", _type(one), default, one.get("description", "")))
    if rows:
        parts.append(_table(("key", "type", "default", "meaning"), rows))
    elif _type(schema) != "object":
        parts.append(_type(schema))
    return "\n\n".join(part for part in parts if part)


def _content(part: Mapping[str, Any]) -> Mapping[str, Any]:
    return next((one.get("schema", {}) for one in part.get("content", {}).values()), {})


def _type(schema: Mapping[str, Any]) -> str:
    """Return the type of a JSON schema in words, with links to named schemas."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#schema-{name.lower()})"
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(_type(one) for one in schema[key]))
    if "const" in schema:
        return _value(schema["const"])
    if "enum" in schema:
        return " or ".join(_value(one) for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}" if schema.get("items") else "list"
    return str(schema.get("type", "" if not schema else "any"))


def _annotation(annotation: Any) -> str:
    if get_origin(annotation) is None:
        words = {str: "text", int: "integer", float: "number", bool: "true or false", type(None): ""}
        return words[annotation] if annotation in words else str(annotation.__name__).lower()
    inner = [one if isinstance(one, str) else _annotation(one) for one in get_args(annotation) if one is not Ellipsis]
    return " or ".join(dict.fromkeys(one for one in inner if one))


def _errors() -> Iterator[type[errors.RecallError]]:
    found: list[type[errors.RecallError]] = [errors.RecallError]
    for error in found:
        if error.__module__ == errors.__name__:
            yield error
            found += error.__subclasses__()


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def _value(value: object) -> str:
    if value is None or value in ("", ()):
        return ""
    shown = {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value
    return f"`{shown}`"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(head)
    lines = [names, ["---"] * len(names)]
    lines += [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    print(GENERATED[sys.argv[1]]())
