"""The architecture as a table: what each part may import. A new part is added here before it imports anything."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

BASICS = {"recall.canonical", "recall.errors", "recall.schema", "recall.config", "recall.values", "recall.vocabulary"}
LAYERS: dict[str, set[str]] = {
    "recall._arrays": set(),
    "recall._ids": {"recall.errors"},
    "recall.degraded": set(),
    "recall": {
        *("recall.answer", "recall.channels", "recall.config", "recall.errors"),
        *("recall.recommender", "recall.request", "recall.rules", "recall.stores.known"),
    },
    "recall.errors": set(),
    "recall.schema": {"recall.errors"},
    "recall.request": {"recall.errors", "recall.channels.kinds", "recall.rules.kinds"},
    "recall.answer": {"recall.channels.merging"},
    "recall.config": {"recall.errors", "recall.schema"},
    "recall.reference": {"recall.config"},
    "recall.canonical": {"recall.errors", "recall.schema", "recall.values"},
    "recall.draft": {"recall.canonical", "recall.errors", "recall.data", "recall.values"},
    "recall.values": {"recall.errors"},
    "recall.vocabulary": {"recall.errors", "recall.values"},
    "recall.features": BASICS - {"recall.config"},
    "recall.data": {*BASICS, "recall.features"},
    # vectors and nothing that they mean
    "recall.vectors": {"recall.compiling", "recall.features.sparse", "recall.features.fields"},
    "recall.proof": {"recall.errors", "recall.features.sparse", "recall.vectors"},
    "recall.index": {
        *("recall.bundle.tensors", "recall.compiling", "recall.config", "recall.errors", "recall.features.sparse"),
        "recall.recent",
    },
    # lists that were found
    "recall.rules": {"recall.errors", "recall.features.sparse", "recall.values"},
    "recall.channels": {"recall.errors", "recall.features.sparse", "recall.rules"},
    "recall.filters": {
        *("recall.canonical", "recall.errors", "recall.recent", "recall.schema", "recall.values"),
        *("recall.features.sparse", "recall.index.selection"),
    },
    # arrays and files
    "recall.compiling": set(),
    "recall.recent": set(),
    "recall.bundle": {
        *("recall.compiling", "recall.durable.sync", "recall.errors", "recall.features", "recall.schema", "recall.vectors"),
    },
    "recall.durable": {"recall.errors"},
    "recall.stores": {"recall.errors"},
    "recall.stores.live": {"recall.durable", "recall.errors", "recall.stores.users", "recall.values"},
    "recall.stores.known": {
        *("recall.errors", "recall.recent", "recall.request", "recall.values", "recall.features", "recall.stores"),
    },
    "recall.stores.writing": {"recall.errors", "recall.data", "recall.values"},
    "recall.live": {
        *("recall.answer", "recall.durable", "recall.errors", "recall.request", "recall.schema", "recall.values"),
        *("recall.canonical", "recall.features", "recall.bundle", "recall.index"),
    },
    "recall.live.binding": {"recall.errors", "recall.bundle", "recall.live"},
    "recall.live.compaction": {"recall.errors", "recall.bundle", "recall.live", "recall.rebuild", "recall.recommender"},
    "recall.eligibility": {
        *("recall.errors", "recall.request", "recall.features.sparse", "recall.bundle", "recall.filters"),
        *("recall.canonical", "recall.index.selection", "recall.live"),
    },
    "recall.preparation": {
        *("recall.answer", "recall.recent"),
        *("recall.errors", "recall.request", "recall.features", "recall.bundle", "recall.live", "recall.stores"),
    },
    "recall.shaping": {
        *("recall.errors", "recall.request", "recall.features", "recall.bundle", "recall.index", "recall.live"),
        *("recall.channels", "recall.filters.values", "recall.rules"),
    },
    "recall.explaining": {
        *("recall.answer", "recall.bundle", "recall.eligibility", "recall.features", "recall.live", "recall.preparation"),
        *("recall.request", "recall.shaping", "recall.values", "recall.vectors", "recall.vocabulary"),
    },
    "recall.similarity": {
        *("recall.answer", "recall.bundle", "recall.eligibility", "recall.features.sparse", "recall.live"),
        *("recall.preparation", "recall.request", "recall.vectors.rows"),
    },
    "recall.scoring": {
        *("recall.answer", "recall.bundle", "recall.errors", "recall.features.sparse", "recall.live", "recall.preparation"),
        *("recall.request", "recall.shaping"),
    },
    "recall.listing": {"recall.answer", "recall.bundle", "recall.features.sparse", "recall.live"},
    "recall.recommender": {
        *("recall.answer", "recall.eligibility", "recall.preparation", "recall.request", "recall.shaping"),
        *("recall.errors", "recall.explaining", "recall.listing", "recall.scoring", "recall.similarity"),
        *("recall.features", "recall.bundle", "recall.index"),
        *("recall.stores", "recall.live"),
    },
    # tensors
    "recall.models.popularity": {*BASICS, "recall.data", "recall.features", "recall.vectors"},
    "recall.models.family": {"recall.config", "recall.features.fields", "recall.models"},
    "recall.models": {"recall.features.sparse", "recall.features.fields", "recall.vectors"},
    "recall.training": {
        *(
            *BASICS,
            "recall.compiling",
            "recall.data",
            "recall.durable.sync",
            "recall.evaluation",
            "recall.features",
            "recall.models",
        ),
    },
    "recall.training.mining": {*BASICS, "recall.features", "recall.models", "recall.training", "recall.index"},
    "recall.tuning": {*BASICS, "recall.data", "recall.features", "recall.training"},
    # what joins them
    "recall.assembly": {*BASICS, "recall.bundle", "recall.features", "recall.index", "recall.proof", "recall.vectors"},
    "recall.golden": {
        *("recall.errors", "recall.bundle", "recall.recommender", "recall.request", "recall.stores"),
    },
    "recall.certificate": {"recall.errors", "recall.config", "recall.features.sparse", "recall.bundle", "recall.index"},
    "recall.export": {
        *("recall.certificate", "recall.golden"),
        *(*BASICS, "recall.assembly", "recall.bundle", "recall.data", "recall.features", "recall.live.binding"),
        *("recall.models", "recall.proof", "recall.stores", "recall.vectors"),
    },
    "recall.rebuild": {
        *(
            *BASICS,
            "recall.assembly",
            *("recall.certificate", "recall.golden"),
            "recall.bundle",
            "recall.data",
            "recall.features",
            "recall.index",
            "recall.live.binding",
            "recall.proof",
        ),
        *("recall.recommender", "recall.request", "recall.stores", "recall.vectors"),
    },
    "recall.other_data": {"recall.bundle", "recall.errors", "recall.stores"},
    "recall.adoption": {
        "recall.other_data",
        *("recall.bundle", "recall.errors", "recall.golden", "recall.live.binding", "recall.rebuild", "recall.recommender"),
    },
    "recall.backup": {
        *("recall.bundle", "recall.durable", "recall.errors", "recall.live", "recall.recommender", "recall.stores.live"),
    },
    "recall.reindex": {
        *("recall.certificate", "recall.golden"),
        "recall.config",
        "recall.errors",
        "recall.bundle",
        "recall.index",
        "recall.rebuild",
        "recall.recommender",
    },
    "recall.vector_export": {
        *("recall.errors", "recall.features.sparse", "recall.bundle", "recall.index.engine", "recall.live.catalogue"),
        *("recall.recommender", "recall.request"),
    },
    "recall.importing": {
        *(
            *BASICS,
            "recall.assembly",
            *("recall.certificate", "recall.golden"),
            "recall.bundle",
            "recall.data",
            "recall.features",
            "recall.live.binding",
            "recall.proof",
            "recall.stores",
        ),
        "recall.vectors",
    },
    "recall.growth": {
        *(*BASICS, "recall.bundle", "recall.data", "recall.features", "recall.stores", "recall.evaluation", "recall.models"),
        "recall.training",
    },
    "recall.evaluation": {
        *(*BASICS, "recall.bundle", "recall.data", "recall.features", "recall.index", "recall.models.popularity"),
        *("recall.recommender", "recall.request", "recall.scoring", "recall.vectors"),
    },
    "recall.cli": {"recall"},  # `recall serve` starts the service, it does not import it
    # HTTP, over what a user of the library may call
    "service": {
        *("recall.answer", "recall.errors", "recall.golden", "recall.recommender", "recall.request", "recall.bundle"),
        *("recall.live.catalogue", "recall.live.following", "recall.stores"),
        *("recall.channels.kinds", "recall.rules.kinds"),
    },
}
"""Longest prefix wins. A part may always import itself."""

_MODELS = ("batch", "contract", "cosine", "family", "ffm", "fm", "fwfm")
TORCH = (
    *(f"recall.models.{name}" for name in _MODELS),
    "recall.training",
    "recall.tuning",
    "recall.export",
    "recall.growth",
    "recall.cli",
)
"""The only parts that may import torch, or a part that does."""

SERVING = (
    "recall.recommender",
    "recall.rebuild",
    "recall.importing.run",
    "recall.stores.writing",
    "recall.data.dataset",
    "service.app",
)


def modules() -> Iterator[tuple[str, Path]]:
    for package in ("recall", "service"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> Iterator[str]:
    """Full names of all that a module imports, wherever in it the statement stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


def part_of(name: str, parts: dict[str, set[str]] = LAYERS) -> str:
    return max((part for part in parts if within(name, part)), key=len)


@pytest.mark.parametrize(("name", "path"), [pytest.param(*one, id=one[0]) for one in modules()])
def test_a_module_imports_only_what_its_part_may(name: str, path: Path) -> None:
    part = part_of(name)
    allowed = LAYERS[part]
    for imported in imports(path):
        if not within(imported, "recall") and not within(imported, "service"):
            continue
        if any(within(imported, f"recall.{one}") for one in ("_arrays", "_ids", "degraded")):
            continue
        own = within(imported, part) and (part != "recall" or imported == "recall")
        assert own or any(within(imported, one) for one in allowed), f"{part} may not import {imported}"


@pytest.mark.parametrize(("library", "parts"), [("torch", TORCH), ("faiss", ("recall.index",)), ("fastapi", ("service",))])
def test_a_library_stays_in_its_part(library: str, parts: tuple[str, ...]) -> None:
    for name, path in modules():
        if not any(within(name, part) for part in parts):
            assert not any(within(imported, library) for imported in imports(path)), f"{name} imports {library}"


@pytest.mark.parametrize("module", SERVING)
def test_serving_needs_neither_torch_nor_pickle_files(module: str) -> None:
    checked = (
        f"import sys; import {module};"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'torch', 'joblib', 'cloudpickle'}))"
    )
    shown = subprocess.run([sys.executable, "-c", checked], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.strip() == "[]"


def test_importing_does_no_work() -> None:
    """No module of the library makes a call for its effect at the top level."""
    for name, path in modules():
        if within(name, "recall"):
            statements = ast.parse(path.read_text(encoding="utf-8")).body
            calls = [one.lineno for one in statements if isinstance(one, ast.Expr) and isinstance(one.value, ast.Call)]
            assert calls == [], name
