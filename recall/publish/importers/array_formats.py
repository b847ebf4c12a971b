"""Read models from .npz files: plain arrays, and LightFM's (Kula 2015)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import polars as pl

from recall._arrays import Float64, Int64
from recall.errors import DataError, did_you_mean
from recall.features.values import canonical
from recall.publish.importers.foreign_model import SIDES, Feature, ForeignModel, Mapped, Parameters, Side

Array = npt.NDArray[np.generic]


def read_npz(path: Path) -> dict[str, Array]:
    """Return all arrays of a file.

    Raises:
        DataError: It is not .npz, or holds Python objects.
    """
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise DataError("this is one array and no .npz", where=str(path), hint="Save all arrays with numpy.savez")
        with file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise DataError("no such file", where=str(path), hint="Give the path of an .npz file") from None
    except (OSError, ValueError, BadZipFile) as error:
        raise DataError(
            "the arrays cannot be read", where=str(path), why=str(error), hint="Write them with numpy.savez, without objects"
        ) from None


def numbers(arrays: Mapping[str, Array], name: str, dimensions: int, path: Path) -> Float64:
    """Return one array as float64.

    Args:
        arrays: by name.
        name: of the array.
        dimensions: number of its dimensions.
        path: of the file, used in the error.

    Raises:
        DataError: It is missing, has other dimensions, or is not finite.
    """
    if name not in arrays:
        raise DataError(f"there is no array {name!r}", where=str(path), hint=did_you_mean(name, arrays))
    found = arrays[name]
    if found.ndim != dimensions or found.dtype.kind not in "fiu":
        raise DataError(
            f"array {name!r} is {found.dtype} {list(found.shape)}, and should hold numbers in {dimensions} dimensions",
            where=str(path),
        )
    values = found.astype(np.float64)
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        raise DataError(
            f"array {name!r} holds {len(wrong)} numbers that are not finite, first at {wrong[0].tolist()}", where=str(path)
        )
    return values


def read_fm_arrays(path: Path) -> ForeignModel:
    """Read a factorization machine of fastFM (w0_, w_, V_ [k, n]) or myFM (w0, w, V).

    The factors of myFM are [n, k].

    Raises:
        DataError: An array is missing, not finite, or of another shape.
    """
    arrays = read_npz(path)
    ending = "_" if "w_" in arrays else ""
    weights, factors = numbers(arrays, "w" + ending, 1, path), numbers(arrays, "V" + ending, 2, path)
    factors = factors.T if ending else factors
    if len(factors) != len(weights):
        raise DataError(f"there are {len(weights)} weights and {len(factors)} embeddings", where=str(path))
    bias = (
        numbers({"w0": np.asarray(arrays["w0" + ending]).reshape(-1)[:1]}, "w0", 1, path) if "w0" + ending in arrays else [0.0]
    )
    return ForeignModel.together("fm", float(bias[0]), Parameters(weights, np.ascontiguousarray(factors)))


# Arrays of a LightFM model (Kula 2015), kept by numpy.savez.
#
#     user_embeddings [n_user_features, k]    user_biases [n_user_features]
#     item_embeddings [n_item_features, k]    item_biases [n_item_features]
#
# The score of a user with features q and an item with features p is
#
#     < sum_u q_u e_u , sum_t p_t e_t > + sum_u q_u b_u + sum_t p_t b_t
#
# so that features of one side make no pairs with each other. What a feature is, a mapping says, as for every other model;
# or the file itself has the feature matrices of LightFM, and then each user and item has one feature, its id:
#
#     item_ids [items] of text                item_features [items, n_item_features], or in compressed sparse row form
#                                             item_features_indptr, item_features_indices, item_features_data
#
# and the same for users. Without a matrix feature r is item r, as with LightFM's own default.

FEATURES, WEIGHTS = "features", "feature_weights"
"""Columns of a table that is made of a matrix: the numbers of a row's features as text, and their weights."""


@dataclass(frozen=True, slots=True)
class LightFMFile:
    """A model and, where the file tells, what its features are.

    Attributes:
        model: the parameters.
        arrays: everything in the files.
        where: names the files in an error.
    """

    model: ForeignModel
    arrays: Mapping[str, Array]
    where: Path

    def described(self, user_id: str, item_id: str) -> tuple[Mapped, pl.DataFrame, pl.DataFrame]:
        """Return the features and the tables of users and items in the file.

        Args:
            user_id: name of the id column of users.
            item_id: name of the id column of items.

        Raises:
            DataError: Ids are missing, or a matrix does not fit.
        """
        users, items = self._table("user", user_id), self._table("item", item_id)
        features: list[Feature] = []
        for side, id_column, table in zip(SIDES, (user_id, item_id), (users, items), strict=True):
            if len(table.columns) == 1:
                features += [Feature(number, side, id_column, value) for number, value in enumerate(table[id_column])]
            else:
                field = f"{side}_{FEATURES}"
                n = len(self.model.parameters[side])
                features += [Feature(number, side, field, str(number), "bag", f"{side}_{WEIGHTS}") for number in range(n)]
        return Mapped(tuple(features)), users, items

    def _table(self, side: Side, id_column: str) -> pl.DataFrame:
        if f"{side}_ids" not in self.arrays:
            raise DataError(
                f"there is no array '{side}_ids'",
                where=str(self.where),
                hint=f"Add the {side}s' ids in order of their rows, or say with --mapping what each feature is",
            )
        given = self.arrays[f"{side}_ids"].reshape(-1)
        try:
            texts = [one.decode() if isinstance(one, bytes) else canonical(one) for one in given.tolist()]
        except (TypeError, UnicodeDecodeError):
            raise DataError(
                f"array '{side}_ids' holds what is not an id", where=str(self.where), hint="Write ids as text or as integers"
            ) from None
        ids = pl.Series(id_column, texts, dtype=pl.String)
        n = len(self.model.parameters[side])
        rows = self._rows(side, len(ids), n)
        if rows is None:
            if len(ids) != n:
                raise DataError(
                    f"there are {len(ids)} ids and {n} embeddings of {side}s",
                    where=str(self.where),
                    hint=f"Add the matrix '{side}_features' that the model was trained with",
                )
            return ids.to_frame()
        names, weights = rows
        return pl.DataFrame([ids, pl.Series(f"{side}_{FEATURES}", names), pl.Series(f"{side}_{WEIGHTS}", weights)])

    def _rows(self, side: Side, n_rows: int, n_features: int) -> tuple[list[list[str]], list[list[float]]] | None:
        """Return the features of each row as text, and their weights, or None."""
        name = f"{side}_features"
        if name in self.arrays:
            dense = numbers(self.arrays, name, 2, self.where)
            self._fit(name, dense.shape, (n_rows, n_features))
            row, column = np.nonzero(dense)
            return _lists(n_rows, row, column, dense[row, column])
        if f"{name}_indptr" not in self.arrays:
            return None
        parts = [numbers(self.arrays, f"{name}_{part}", 1, self.where) for part in ("indptr", "indices", "data")]
        indptr, column, weights = parts[0].astype(np.int64), parts[1].astype(np.int64), parts[2]
        sound = (
            len(indptr) > 0 and indptr[0] == 0 and indptr[-1] == len(column) == len(weights) and (np.diff(indptr) >= 0).all()
        )
        if not sound or (len(column) and not 0 <= column.min() <= column.max() < n_features):
            raise DataError(f"'{name}' is not a CSR matrix over {n_features} features", where=str(self.where))
        self._fit(name, (len(indptr) - 1, n_features), (n_rows, n_features))
        return _lists(n_rows, np.repeat(np.arange(n_rows), np.diff(indptr)), column, weights)

    def _fit(self, name: str, found: Sequence[int], expected: Sequence[int]) -> None:
        if tuple(found) != tuple(expected):
            raise DataError(f"'{name}' is {list(found)}, and should be {list(expected)}", where=str(self.where))


def read_lightfm(path: Path) -> LightFMFile:
    """Read embeddings and biases, and keep what else the file has.

    Raises:
        DataError: an array is missing, not finite, or of another shape.
    """
    arrays = read_npz(path)
    parameters: dict[Side, Parameters] = {}
    for side in SIDES:
        factors, weights = (numbers(arrays, f"{side}_embeddings", 2, path), numbers(arrays, f"{side}_biases", 1, path))
        if len(factors) != len(weights):
            raise DataError(f"there are {len(factors)} embeddings and {len(weights)} biases of {side}s", where=str(path))
        parameters[side] = Parameters(weights, factors)
    k = {side: part.factors.shape[1] for side, part in parameters.items()}
    if k["user"] != k["item"]:
        raise DataError(f"users have {k['user']} factors and items {k['item']}", where=str(path))
    return LightFMFile(ForeignModel("sums", 0.0, parameters), arrays, path)


def _lists(n: int, row: Int64, column: Int64, weights: Float64) -> tuple[list[list[str]], list[list[float]]]:
    """Return the columns as text and the weights of each of n rows; `row` is sorted."""
    ends = np.cumsum(np.bincount(row, minlength=n))[:-1]
    names = [list(map(str, part.tolist())) for part in np.split(column, ends)[:n]]
    return names, [part.tolist() for part in np.split(weights, ends)[:n]]
