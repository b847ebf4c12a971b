"""The layers of the packages, from the bottom up; add new packages here."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LAYERS = (
    {
        "_arrays",
        "_breaker",
        "_cache",
        "_file_system",
        "_heap",
        "_ids",
        "_numba",
        "_priority",
        "_progress",
        "_tensors",
        "_text_table",
        "_text_table_kernels",
        "errors",
    },  # used everywhere
    {"client"},  # of the HTTP API; it needs none of the others
    {"config"},  # the schema and the configuration of a run
    {"features"},  # columns -> sparse feature rows
    {"data", "models"},  # tables -> a data set; models for serving (numpy) and for training (torch)
    {"index"},  # top-k search
    {"bundle"},  # the published folder and its versions
    {"store"},  # live changes of items and users
    {"serving"},  # the recommender: requests, filters, re-ranking, explanations
    {"evaluation"},  # metrics and protocols
    {"publish"},  # export, rebuild, import
    {"training"},
    {"pipeline"},  # from tables to a published version
    {"api"},  # fit and load: frames in, frames out
    {"cli"},
    {"__main__"},  # `python -m recall`
)
"""Packages and modules of recall/ from the bottom up. Each imports only lower layers."""

SERVICE = (
    "recall",
    "recall.bundle",
    "recall.errors",
    "recall.evaluation",
    "recall.publish.golden",
    "recall.serving",
    "recall.store",
)
"""Packages that the service may import."""

UNNEEDED = ("torch", "joblib", "cloudpickle", "matplotlib", "optuna", "zstandard")
"""Packages that serving does without."""

TORCH = ("recall.models.torch", "recall.training", "recall.publish.export", "recall.pipeline", "recall.cli", "recall.__main__")
"""The only packages that may import torch, directly or indirectly."""

SERVING = (
    "recall.serving.recommender",
    "recall.publish.rebuild",
    "recall.publish.importers.importer",
    "recall.store.users.bundle_users",
    "recall.data.dataset",
    "service.app",
)


def modules() -> Iterator[tuple[str, Path]]:
    for package in ("recall", "service"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


def imports(path: Path) -> Iterator[str]:
    """Collect the full names of all imports of a module, at any position."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


def module_of(name: str) -> str:
    """Return the module of a full name."""
    return name if name in MODULES else name.rpartition(".")[0]


def layer_of(name: str) -> int:
    part = name.split(".")[1]
    assert any(part in parts for parts in LAYERS), f"recall.{part} is in no layer: add it to LAYERS"
    return next(number for number, parts in enumerate(LAYERS) if part in parts)


@pytest.mark.parametrize("name", [name for name in MODULES if within(name, "recall") and name != "recall"])
def test_a_module_imports_only_lower_layers(name: str) -> None:
    for imported in imports(MODULES[name]):
        if within(imported, "recall") and imported != "recall" and imported.split(".")[1] != name.split(".")[1]:
            upper, lower = layer_of(name), layer_of(imported)
            assert lower < upper or upper == 0, f"{name} may not import {imported}: it is not in a layer below"
        assert not within(imported, "service"), f"{name} may not import {imported}"


@pytest.mark.parametrize("name", [name for name in MODULES if within(name, "service")])
def test_the_service_imports_only_public_modules(name: str) -> None:
    for imported in imports(MODULES[name]):
        if within(imported, "recall"):
            assert any(within(imported, part) for part in SERVICE) or module_of(imported) == "recall", imported


def test_there_are_no_import_cycles() -> None:
    below = {name: {module_of(one) for one in imports(path)} & MODULES.keys() for name, path in MODULES.items()}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " imports ".join((*above[above.index(name) :], name))
        if name not in done:
            for one in sorted(below[name] - {name, "recall"}):
                visit(one, (*above, name))
            done.add(name)

    for name in sorted(MODULES):
        visit(name, ())


@pytest.mark.parametrize(("library", "parts"), [("torch", TORCH), ("faiss", ("recall.index",)), ("fastapi", ("service",))])
def test_a_library_is_imported_only_in_its_layer(library: str, parts: tuple[str, ...]) -> None:
    for name, path in modules():
        if not any(within(name, part) for part in parts):
            assert not any(within(imported, library) for imported in imports(path)), f"{name} imports {library}"


@pytest.mark.parametrize("module", SERVING)
def test_serving_needs_neither_torch_nor_large_packages_of_other_extras(module: str) -> None:
    checked = f"import sys; import {module};print(sorted({{name.partition('.')[0] for name in sys.modules}} & {set(UNNEEDED)}))"
    shown = subprocess.run([sys.executable, "-c", checked], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.strip() == "[]"


def test_files_of_tests_are_named_after_what_they_test() -> None:
    """A file is test_MODULE.py, or test_MODULE_TOPIC.py, in the folder of the module."""
    packages = {path.name for path in (ROOT / "recall").iterdir() if path.is_dir()}
    for file in (ROOT / "tests").rglob("test_*.py"):
        folder = file.relative_to(ROOT / "tests").parent
        if folder.parts and folder.parts[0] in packages:
            known = {path.stem for path in (ROOT / "recall" / folder).iterdir()}
            assert any(f"{file.stem}_".startswith(f"test_{name}_") for name in known), file


def test_importing_has_no_side_effects() -> None:
    """No module of the library has calls with side effects at the top level."""
    for name, path in modules():
        if within(name, "recall"):
            statements = ast.parse(path.read_text(encoding="utf-8")).body
            calls = [one.lineno for one in statements if isinstance(one, ast.Expr) and isinstance(one.value, ast.Call)]
            assert calls == [], name
