"""The service uses only public modules of libraries; ruff refuses private attributes."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVICE = Path(__file__).parents[2] / "service"
MODULES = sorted(SERVICE.rglob("*.py"))
INNER = ("uvicorn.protocols", "uvicorn.supervisors", "uvicorn.lifespan", "uvicorn.loops")
"""Modules of the server that it does not document."""


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of all imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{one.name}" for one in node.names)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(SERVICE)))
def test_nothing_private_is_imported(module: Path) -> None:
    for name in imported(ast.parse(module.read_text(encoding="utf-8"))):
        private = any(part.startswith("_") for part in name.split(".")[1:])
        assert name.startswith("recall.") or not private, name
        assert not name.startswith(INNER), name
