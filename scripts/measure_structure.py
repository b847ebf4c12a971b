"""Print statistics of the structure of a source tree.

Packages, modules, statements, imports, and files entered by one recommendation.

    python scripts/measure_structure.py [TREE ...]

Each TREE is a checkout; the default is the tree of this script. Several are compared.
"""

import argparse
import ast
import itertools
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]

Graph = Mapping[str, set[str]]

_ENTERED = """
import pathlib, shutil, sys, tempfile
import recall
home = str(pathlib.Path(recall.__file__).parent)
with tempfile.TemporaryDirectory() as made:
    bundle = shutil.copytree(max(pathlib.Path("tests/golden").glob("bundle_v*_fm")), made + "/bundle")
    recommender = recall.Recommender.load(bundle)
    user = recommender.users.sample(1, 0)[0]
    request = recall.Request(user, n=5)
    recommender.recommend(request)
    entered = set()
    sys.setprofile(lambda frame, event, _: entered.add(frame.f_code.co_filename) if event == "call" else None)
    recommender.recommend(request)
    sys.setprofile(None)
    recommender.close()
print(sum(one.startswith(home) for one in entered))
"""


def main() -> None:
    """Measure the given trees and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trees", nargs="*", type=Path, default=[HERE], metavar="TREE")
    parser.add_argument("--list", action="store_true", help="also name the upward imports and the cycles")
    given = parser.parse_args()
    measured = [measure(tree.resolve()) for tree in given.trees]
    width = max(len(name) for name in measured[0])
    print(f"{'':{width}}", *(f"{tree.resolve().name:>12}" for tree in given.trees))
    for name in measured[0]:
        print(f"{name:{width}}", *(f"{figures[name]:>12,}" for figures in measured))
    if given.list:
        for tree in given.trees:
            graph = imports(tree / "recall")
            for upper, lower in upward(parts_of(graph)):
                pairs = sorted((one, two) for one in graph for two in graph[one] if (part(one), part(two)) == (upper, lower))
                for one, two in pairs:
                    print(f"{tree}: upward: {one} imports {two}")
            for cycle in cycles(graph):
                print(f"{tree}: cycle: {', '.join(sorted(cycle))}")


def measure(tree: Path) -> dict[str, int]:
    """Return all statistics of one tree by name."""
    ours, service = modules(tree / "recall"), modules(tree / "service")
    graph = imports(tree / "recall")
    parts = {part(name) for name in graph if name != "recall"}
    sizes = [len(path.read_text(encoding="utf-8").splitlines()) for path in ours.values()]
    of_recall, of_service = (sum(map(statements, some.values())) for some in (ours, service))
    return {
        "first-level packages and public modules of recall/": sum(not name.split(".")[1].startswith("_") for name in parts),
        "modules of five lines and more in recall/": sum(size >= 5 for size in sizes),
        "statements (AST, docstrings not counted), recall/ + service/": of_recall + of_service,
        "the same in recall/": of_recall,
        "the same in service/": of_service,
        "upward imports between first-level parts of recall/": len(upward(parts_of(graph))),
        "import cycles between files of recall/": len(cycles(graph)),
        "files entered by one plain recommendation": entered(tree),
    }


def modules(package: Path) -> dict[str, Path]:
    """Return files by the full name of the module."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        names = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(names[:-1] if names[-1] == "__init__" else names)] = path
    return found


def statements(path: Path) -> int:
    """Count the statements of a file, nested ones included, without docstrings."""
    return sum(isinstance(node, ast.stmt) and not _is_text(node) for node in ast.walk(_tree(path)))


def imports(package: Path) -> dict[str, set[str]]:
    """Return imported modules by module, at any position.

    Imports for type checkers are excluded.
    """
    known = modules(package)
    return {name: set(_imported(_tree(path), known)) - {name} for name, path in known.items()}


def part(name: str) -> str:
    """Return the first-level part of a package for a module."""
    return ".".join(name.split(".")[:2])


def parts_of(graph: Graph) -> dict[str, set[str]]:
    """Return the graph of imports between first-level parts.

    The `__init__` of the package is not a part.
    """
    own = {name.partition(".")[0] for name in graph}
    found: dict[str, set[str]] = {part(name): set() for name in graph if name not in own}
    for name in graph:
        if name not in own:
            found[part(name)] |= {part(one) for one in graph[name] if one not in own} - {part(name)}
    return found


def upward(graph: Graph) -> list[tuple[str, str]]:
    """Return a smallest set of edges to remove for an acyclic graph.

    These are the upward imports.
    """
    found: list[tuple[str, str]] = []
    for cycle in cycles(graph):
        arrows = [(one, two) for one in sorted(cycle) for two in sorted(graph[one] & cycle)]
        for size in itertools.count(1):
            fitting = (some for some in itertools.combinations(arrows, size) if not cycles(_without(graph, cycle, some)))
            if (best := next(fitting, None)) is not None:
                found += best
                break
    return found


def cycles(graph: Graph) -> list[set[str]]:
    """Return strongly connected components of more than one node."""
    reached = {one: _reachable(graph, one) for one in graph}
    found = {frozenset({one, *(two for two in reached[one] if one in reached[two])}) for one in graph}
    return sorted((set(one) for one in found if len(one) > 1), key=min)


def entered(tree: Path) -> int:
    """Count the files of recall/ that the second of two plain recommendations enters."""
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _ENTERED]
    return int(subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True, text=True).stdout)


def _without(graph: Graph, nodes: set[str], arrows: Sequence[tuple[str, str]]) -> dict[str, set[str]]:
    return {one: {two for two in graph[one] & nodes if (one, two) not in arrows} for one in nodes}


def _reachable(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            waiting += graph[one]
    return seen


def _imported(node: ast.AST, known: Iterable[str]) -> Iterator[str]:
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in known)
    elif isinstance(node, ast.ImportFrom) and node.module is not None:
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            if full in known:
                yield full
            elif node.module in known:
                yield node.module
    for child in ast.iter_child_nodes(node):
        yield from _imported(child, known)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
