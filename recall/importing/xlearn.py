"""The text that xLearn writes with -t (setTXTModel): linear model, FM or FFM.

    bias: 0.5
    i_0: 0.1              weight of feature 0
    v_0: 0.1 0.2          FM: its embedding
    v_0_3: 0.1 0.2        FFM: its embedding towards field 3

xLearn divides by |x|^2 of each instance unless it was told not to (--no-norm, disableNorm), and the text does not say.
"""

import re
from pathlib import Path

import numpy as np

from recall._arrays import Float64
from recall.errors import DataError
from recall.importing.foreign import (
    ForeignModel,
    Parameters,
)
from recall.importing.lines import Lines

_LINE = re.compile(r"^(bias|i_(\d+)|v_(\d+)|v_(\d+)_(\d+))\s*:\s*(.*)$")


def read_xlearn(path: Path) -> ForeignModel:
    """Read a linear model, an FM or an FFM that was trained without normalisation of instances.

    Raises:
        DataError: a line is not what it should be; names it.
    """
    lines = Lines(path)
    bias: float | None = None
    weights: dict[int, float] = {}
    vectors: dict[tuple[int, ...], list[float]] = {}
    for line in lines:
        found = _LINE.match(line)
        if found is None:
            raise lines.expected("'bias: w', 'i_0: w', 'v_0: ...' or 'v_0_0: ...'", line)
        if found[1] == "bias":
            bias = lines.numbers(found[6], "the bias", 1)[0]
        elif found[2] is not None:
            weights[int(found[2])] = lines.numbers(found[6], "a weight", 1)[0]
        else:
            key = (int(found[3]),) if found[3] is not None else (int(found[4]), int(found[5]))
            first = next(iter(vectors), key)
            if len(first) != len(key):
                raise lines.expected("an embedding like those before it: FM and FFM do not mix", line)
            vectors[key] = lines.numbers(found[6], "factors", len(vectors[first]) if vectors else None)
    if bias is None:
        raise lines.expected("'bias: w'", None)
    if not weights:
        raise lines.expected("a weight 'i_0: w' for each feature", None)
    n = max(weights) + 1
    if len(weights) < n:
        lacking = next(number for number in range(n) if number not in weights)
        raise DataError(f"feature {lacking} has no weight", where=str(path), mend="Save the model again")
    singles = np.array([weights[number] for number in range(n)])
    if not vectors:
        return ForeignModel.together("fm", bias, Parameters(singles, np.zeros((n, 0))))
    factors = _factors(vectors, n, path)
    return ForeignModel.together("fm" if factors.ndim == 2 else "ffm", bias, Parameters(singles, factors))


def _factors(vectors: dict[tuple[int, ...], list[float]], n: int, path: Path) -> Float64:
    """[n, k] or [n, fields, k]; every embedding must be there."""
    keys = np.array(list(vectors))
    shape = (n, *(keys[:, 1:].max(axis=0) + 1))
    if len(vectors) != np.prod(shape) or keys[:, 0].max() >= n:
        raise DataError(
            f"there are {len(vectors)} embeddings for {n} features" + (f" and {shape[1]} fields" if len(shape) > 1 else ""),
            where=str(path),
            mend="Each feature has one (FM), or one for each field (FFM): save the model again",
        )
    factors = np.empty((*shape, len(next(iter(vectors.values())))))
    factors[tuple(keys.T)] = list(vectors.values())
    return factors
