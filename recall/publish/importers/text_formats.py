"""Read models from the text files of libFM, libffm and xLearn."""

import re
from collections.abc import Iterator
from math import isfinite
from pathlib import Path

import numpy as np

from recall._arrays import Float64
from recall.errors import DataError
from recall.publish.importers.foreign_model import ForeignModel, Parameters


class Lines:
    """The lines of a text file; blank ones are counted and skipped."""

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            DataError: It cannot be read, or is not text.
        """
        self.path = path
        self.number = 0
        try:
            self._lines = path.read_text(encoding="ascii").splitlines()
        except FileNotFoundError:
            raise DataError("no such file", where=str(path), hint="Give the path of the model") from None
        except UnicodeDecodeError as error:
            raise DataError(
                "the file is not text",
                where=str(path),
                why=str(error),
                hint="Save the model as text",
            ) from None
        except OSError as error:
            raise DataError("the file cannot be read", where=str(path), why=str(error)) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.next, None)

    def next(self) -> str | None:
        """Return the next line that is not blank, stripped; None at the end."""
        while self.number < len(self._lines):
            self.number += 1
            line = self._lines[self.number - 1].strip()
            if line:
                return line
        return None

    def expected(self, what: str, found: str | None) -> DataError:
        """Return the error for an unexpected line.

        Args:
            what: description of the expected line.
            found: the line; None at the end of the file.
        """
        shown = "the end of the file" if found is None else repr(found[:60])
        return DataError(f"line {self.number + (found is None)} should hold {what}, found {shown}", where=str(self.path))

    def numbers(self, text: str, what: str, count: int | None = None) -> list[float]:
        """Parse the finite numbers of a line.

        Args:
            text: the line, or a part of it.
            what: description of the numbers, for errors.
            count: required number of numbers; None for any.

        Raises:
            DataError: A number is invalid or not finite, or their number differs.
        """
        try:
            values = [float(part) for part in text.split()]
        except ValueError:
            raise self.expected(what, text) from None
        if count is not None and len(values) != count:
            raise self.expected(f"{what} ({count} numbers, here are {len(values)})", text)
        for value in values:
            if not isfinite(value):
                raise DataError(
                    f"line {self.number} holds {value}, which is not finite",
                    where=str(self.path),
                    hint="The model diverged while it was trained; train it with a smaller learning rate",
                )
        return values


# Text file that libFM writes with -save_model (Rendle 2012):
#
#     #global bias W0
#     0.71
#     #unary interactions Wj
#     one number for each feature
#     #pairwise interactions Vj,f
#     k numbers for each feature
#
# The first two parts are missing if libFM was run with -dim 0,... or ...,0,...; features are numbered from 0.

_BIAS, _UNARY, _PAIRWISE = "#global bias W0", "#unary interactions Wj", "#pairwise interactions Vj,f"
_ORDER: tuple[str, ...] = (_BIAS, _UNARY, _PAIRWISE)


def read_libfm(path: Path) -> ForeignModel:
    """Read a factorization machine.

    Raises:
        DataError: A line is invalid; the message has its number.
    """
    lines = Lines(path)
    parts: dict[str, list[list[float]]] = {}
    heading, left = "", _ORDER
    for line in lines:
        if line.startswith("#"):
            if line not in left:
                raise lines.expected(f"one of the headings {', '.join(map(repr, _ORDER))}, each once and in this order", line)
            heading, left = line, left[left.index(line) + 1 :]
            parts[heading] = []
        elif not heading:
            raise lines.expected(f"the heading {_BIAS!r}", line)
        else:
            first = next(iter(parts[heading]), None)
            width = 1 if heading != _PAIRWISE else None if first is None else len(first)
            parts[heading].append(lines.numbers(line, "numbers", width))
    if not parts:
        raise lines.expected(f"the heading {_BIAS!r}", None)
    bias = parts.get(_BIAS, [[0.0]])
    if len(bias) != 1:
        raise DataError(f"{_BIAS!r} must have one number, got {len(bias)}", where=str(path))
    weights, factors = parts.get(_UNARY), parts.get(_PAIRWISE)
    n = len(factors or weights or [])
    if weights and factors and len(weights) != len(factors):
        raise DataError(
            f"there are {len(weights)} numbers under {_UNARY!r} and {len(factors)} lines under {_PAIRWISE!r}",
            where=str(path),
            why="each feature must have a number and a line",
            hint="The file may have been cut short: save the model again",
        )
    if n == 0:
        raise DataError("the model has no features", where=str(path))
    return ForeignModel.together(
        "fm",
        bias[0][0],
        Parameters(np.array(weights)[:, 0] if weights else np.zeros(n), np.array(factors) if factors else np.zeros((n, 0))),
    )


# Text file of libffm, with a field-aware factorization machine (Juan et al. 2016):
#
#     n 100             number of features
#     m 5               number of fields
#     k 4               number of factors
#     normalization 0
#     w0,0 0.1 0.2 0.3 0.4      embedding of feature 0 for field 0
#     w0,1 ...
#
# It has no bias and no first-order weights. Later versions of libffm write a binary file.

_EMBEDDING = re.compile(r"^w(\d+),(\d+)\s+(.*)$")


def read_libffm(path: Path) -> ForeignModel:
    """Read a field-aware factorization machine.

    Raises:
        DataError: A line is invalid, and the message has its number; or the model normalises instances.
    """
    lines = Lines(path)
    n, m, k, normalised = (_header(lines, name) for name in ("n", "m", "k", "normalization"))
    if normalised:
        raise DataError(
            "the model normalises instances, which inner products cannot reproduce",
            where=f"{path}, line 4",
            why="a score is divided by |x|^2 of user and item together, which vectors of users and of items cannot represent",
            hint="Train it with --no-norm",
        )
    if min(n, m, k) < 1:
        raise DataError(f"the model has {n} features, {m} fields and {k} factors", where=str(path), hint="Each is at least 1")
    factors = np.full((n, m, k), np.nan)
    for line in lines:
        found = _EMBEDDING.match(line)
        if found is None or int(found[1]) >= n or int(found[2]) >= m:
            raise lines.expected(f"an embedding w0,0 ... w{n - 1},{m - 1}", line)
        factors[int(found[1]), int(found[2])] = lines.numbers(found[3], f"{k} factors", k)
    missing = np.argwhere(np.isnan(factors[:, :, 0]))
    if len(missing):
        raise DataError(
            f"{len(missing)} of {n * m} embeddings are missing, first w{missing[0][0]},{missing[0][1]}",
            where=str(path),
            hint="The file may have been cut short: save the model again",
        )
    return ForeignModel.together("ffm", 0.0, Parameters(np.zeros(n), factors))


def _header(lines: Lines, name: str) -> int:
    line = lines.next()
    parts = (line or "").split()
    if len(parts) != 2 or parts[0] != name or not parts[1].isdigit():
        raise lines.expected(f"{name!r} and an integer", line)
    return int(parts[1])


# Text file that xLearn writes with -t (setTXTModel), with a linear model, FM or FFM:
#
#     bias: 0.5
#     i_0: 0.1              weight of feature 0
#     v_0: 0.1 0.2          FM: its embedding
#     v_0_3: 0.1 0.2        FFM: its embedding for field 3
#
# xLearn divides scores by |x|^2 of the instance unless --no-norm (disableNorm) was set, which the file does not record.

_LINE = re.compile(r"^(bias|i_(\d+)|v_(\d+)|v_(\d+)_(\d+))\s*:\s*(.*)$")


def read_xlearn(path: Path) -> ForeignModel:
    """Read a linear model, FM or FFM trained without instance normalisation.

    Raises:
        DataError: A line is invalid; the message has its number.
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
                raise lines.expected("an embedding like those before, as FM and FFM must not be mixed", line)
            vectors[key] = lines.numbers(found[6], "factors", len(vectors[first]) if vectors else None)
    if bias is None:
        raise lines.expected("'bias: w'", None)
    if not weights:
        raise lines.expected("a weight 'i_0: w' for each feature", None)
    n = max(weights) + 1
    if len(weights) < n:
        missing = next(number for number in range(n) if number not in weights)
        raise DataError(f"feature {missing} has no weight", where=str(path), hint="Save the model again")
    factors = _to_array(vectors, n, path) if vectors else np.zeros((n, 0))
    first_order = np.array([weights[number] for number in range(n)])
    return ForeignModel.together("fm" if factors.ndim == 2 else "ffm", bias, Parameters(first_order, factors))


def _to_array(vectors: dict[tuple[int, ...], list[float]], n: int, path: Path) -> Float64:
    """Return embeddings as an array, float64 [n, k] or [n, fields, k]."""
    keys = np.array(list(vectors))
    shape = (n, *(keys[:, 1:].max(axis=0) + 1))
    if len(vectors) != np.prod(shape) or keys[:, 0].max() >= n:
        raise DataError(
            f"there are {len(vectors)} embeddings for {n} features" + (f" and {shape[1]} fields" if len(shape) > 1 else ""),
            where=str(path),
            hint="Each feature has one (FM), or one for each field (FFM): save the model again",
        )
    factors = np.empty((*shape, len(next(iter(vectors.values())))))
    factors[tuple(keys.T)] = list(vectors.values())
    return factors
