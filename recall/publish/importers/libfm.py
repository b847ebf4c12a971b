"""The text that libFM writes with -save_model (Rendle 2012).

    #global bias W0
    0.71
    #unary interactions Wj
    one number for each feature
    #pairwise interactions Vj,f
    k numbers for each feature

The first two parts are left out when libFM was run with -dim 0,... or ...,0,...; features are numbered from 0.
"""

from pathlib import Path

import numpy as np

from recall.errors import DataError
from recall.publish.importers.foreign_model import ForeignModel, Parameters
from recall.publish.importers.lines import Lines

_BIAS, _UNARY, _PAIRWISE = "#global bias W0", "#unary interactions Wj", "#pairwise interactions Vj,f"
_ORDER = (_BIAS, _UNARY, _PAIRWISE)


def read_libfm(path: Path) -> ForeignModel:
    """Read a factorization machine.

    Raises:
        DataError: a line is not what it should be; names it.
    """
    lines = Lines(path)
    parts: dict[str, list[list[float]]] = {}
    heading = ""
    for line in lines:
        if line.startswith("#"):
            if line not in _ORDER[len(parts) :] or (parts and _ORDER.index(line) <= _ORDER.index(heading)):
                raise lines.expected(f"one of the headings {', '.join(map(repr, _ORDER))}, each once and in this order", line)
            heading = line
            parts[heading] = []
        elif not heading:
            raise lines.expected(f"the heading {_BIAS!r}", line)
        else:
            width = len(parts[_PAIRWISE][0]) if heading == _PAIRWISE and parts[_PAIRWISE] else None
            width = width if heading == _PAIRWISE else 1
            parts[heading].append(lines.numbers(line, "numbers", width))
    if not parts:
        raise lines.expected(f"the heading {_BIAS!r}", None)
    bias = parts.get(_BIAS, [[0.0]])
    if len(bias) != 1:
        raise DataError(f"there are {len(bias)} numbers under {_BIAS!r}, and should be one", where=str(path))
    weights, factors = parts.get(_UNARY), parts.get(_PAIRWISE)
    n = len(factors or weights or [])
    if weights and factors and len(weights) != len(factors):
        raise DataError(
            f"there are {len(weights)} numbers under {_UNARY!r} and {len(factors)} lines under {_PAIRWISE!r}",
            where=str(path),
            why="each feature has one of both",
            mend="The file may have been cut short: save the model again",
        )
    if n == 0:
        raise DataError("the model has no features", where=str(path))
    return ForeignModel.together(
        "fm",
        bias[0][0],
        Parameters(np.array(weights)[:, 0] if weights else np.zeros(n), np.array(factors) if factors else np.zeros((n, 0))),
    )
