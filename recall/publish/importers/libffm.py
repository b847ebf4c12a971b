"""The text in which libffm keeps a field-aware factorization machine (Juan et al. 2016).

    n 100             number of features
    m 5               number of fields
    k 4               number of factors
    normalization 0
    w0,0 0.1 0.2 0.3 0.4      embedding of feature 0 towards field 0
    w0,1 ...

There is no bias and there are no weights of single features. Later versions of libffm write a binary file.
"""

import re
from pathlib import Path

import numpy as np

from recall.errors import DataError
from recall.publish.importers.foreign_model import ForeignModel, Parameters
from recall.publish.importers.lines import Lines

_EMBEDDING = re.compile(r"^w(\d+),(\d+)\s+(.*)$")


def read_libffm(path: Path) -> ForeignModel:
    """Read a field-aware factorization machine.

    Raises:
        DataError: a line is not what it should be, names it; or the model normalises instances.
    """
    lines = Lines(path)
    n, m, k, normalised = (_header(lines, name) for name in ("n", "m", "k", "normalization"))
    if normalised:
        raise DataError(
            "the model normalises instances, which no inner product does",
            where=f"{path}, line 4",
            why="its score is divided by |x|^2 of user and item together, so that no vector of the item alone holds its part",
            mend="Train it with --no-norm",
        )
    if min(n, m, k) < 1:
        raise DataError(f"the model has {n} features, {m} fields and {k} factors", where=str(path), mend="Each is at least 1")
    factors = np.full((n, m, k), np.nan)
    for line in lines:
        found = _EMBEDDING.match(line)
        if found is None or int(found[1]) >= n or int(found[2]) >= m:
            raise lines.expected(f"an embedding w0,0 ... w{n - 1},{m - 1}", line)
        factors[int(found[1]), int(found[2])] = lines.numbers(found[3], f"{k} factors", k)
    absent = np.argwhere(np.isnan(factors[:, :, 0]))
    if len(absent):
        raise DataError(
            f"{len(absent)} of {n * m} embeddings are not there, first w{absent[0][0]},{absent[0][1]}",
            where=str(path),
            mend="The file may have been cut short: save the model again",
        )
    return ForeignModel.together("ffm", 0.0, Parameters(np.zeros(n), factors))


def _header(lines: Lines, name: str) -> int:
    line = lines.next()
    parts = (line or "").split()
    if len(parts) != 2 or parts[0] != name or not parts[1].isdigit():
        raise lines.expected(f"{name!r} and a whole number", line)
    return int(parts[1])
