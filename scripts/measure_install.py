"""Print the size on disk of an installation, by package.

    python scripts/measure_install.py [extra ...]

The extras are `serve`, as of `pip install 'fm-recall[serve]'`, unless others are given. What is installed here is
measured: blocks on disk as of du, compiled modules included.
"""

import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SHOWN = 5  # MB from which a package has its own line


def requirements(name: str, extras: Iterable[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield the packages that one requires here, with their extras.

    Args:
        name: of the package.
        extras: of it that are wanted.
    """
    for line in distribution(name).requires or ():
        needed = Requirement(line)
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield needed.name, frozenset(needed.extras)


def closure(extras: Iterable[str]) -> list[str]:
    """Return the names of all packages that an installation needs, in order.

    Args:
        extras: of the project.
    """
    seen = {("fm-recall", frozenset(extras))}
    rest = list(seen)
    while rest:
        more = set(requirements(*rest.pop())) - seen
        seen |= more
        rest += more
    return sorted({canonicalize_name(name) for name, _ in seen} - {"fm-recall"})


def size(package: Distribution) -> int:
    """Return bytes on disk of an installed package.

    Args:
        package: whose files are summed up.
    """
    paths = (Path(str(package.locate_file(file))) for file in package.files or ())
    return sum(path.stat().st_blocks * 512 for path in paths if path.is_file())


def measured(extras: Iterable[str]) -> dict[str, float]:
    """Return MB (2^20 bytes) by package, the largest first.

    Args:
        extras: of the project.
    """
    sizes = {name: size(distribution(name)) / 2**20 for name in closure(extras)}
    return dict(sorted(sizes.items(), key=lambda one: -one[1]))


if __name__ == "__main__":
    sizes = measured(sys.argv[1:] or ["serve"])
    for name, taken in sizes.items():
        if taken >= SHOWN:
            print(f"{taken:7.0f} MB  {name}")
    small = [taken for taken in sizes.values() if taken < SHOWN]
    print(f"{sum(small):7.0f} MB  {len(small)} packages of less than {SHOWN} MB")
    print(f"{sum(sizes.values()):7.0f} MB  in all")
