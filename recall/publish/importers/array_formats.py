"""Read models from .npz files: plain arrays, and LightFM's (Kula 2015)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import polars as pl

from recall._arrays import Float64, Int64
from recall.config.schema import Side
from recall.errors import DataError, did_you_mean
from recall.features.values import canonical
from recall.publish.importers.foreign_model import SIDES, Feature, ForeignModel, Mapped, Parameters

Array = npt.NDArray[np.generic]


def read_npz(path: Path) -> dict[str, Array]:
    """Return all arrays of a file.

    Raises:
        DataError: It is not .npz, or holds Python objects.
    """
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise DataError(
                "the file must be an .npz of several arrays, got one array",
                where=str(path),
                hint="Save all arrays with numpy.savez",
            )
        with file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise DataError("no such file", where=str(path), hint="Give the path of an .npz file") from None
    except (OSError, ValueError, BadZipFile) as error:
        raise DataError(
            "the arrays cannot be read", where=str(path), why=str(error), hint="Write them with numpy.savez, without objects"
        ) from None


def numbers(arrays: Mapping[str, Array], name: str, dimensions: int, path: Path) -> Float64:
    """Return an array as float64.

    Args:
        arrays: arrays by name.
        name: name of the array.
        dimensions: required number of dimensions.
        path: path of the file, for errors.

    Raises:
        DataError: It is missing, not numeric, not finite, or has a different number of dimensions.
    """
    if name not in arrays:
        raise DataError(f"there is no array {name!r}", where=str(path), hint=did_you_mean(name, arrays))
    array = arrays[name]
    if array.ndim != dimensions or array.dtype.kind not in "fiu":
        raise DataError(
            f"array {name!r} must have numbers in {dimensions} dimensions, got {array.dtype} {list(array.shape)}",
            where=str(path),
        )
    values = array.astype(np.float64)
    invalid = np.argwhere(~np.isfinite(values))
    if len(invalid):
        raise DataError(
            f"array {name!r} has {len(invalid)} numbers that are not finite, first at {invalid[0].tolist()}", where=str(path)
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


# Arrays of a LightFM model (Kula 2015), written by numpy.savez:
#
#     user_embeddings [n_user_features, k]    user_biases [n_user_features]
#     item_embeddings [n_item_features, k]    item_biases [n_item_features]
#
# The score of a user with features q and an item with features p is
#
#     < sum_u q_u e_u , sum_t p_t e_t > + sum_u q_u b_u + sum_t p_t b_t
#
# so that features of one side do not interact. The features are described by a mapping, as for every other model, or by
# LightFM's feature matrices in the file:
#
#     item_ids [items] of text                item_features [items, n_item_features], or in compressed sparse row form
#                                             item_features_indptr, item_features_indices, item_features_data
#
# and the same for users. Without a matrix, feature r is item r, as by default in LightFM.

FEATURES, WEIGHTS = "features", "feature_weights"
"""Columns of a table made of a feature matrix: the numbers of a row's features as text, and their weights."""


@dataclass(frozen=True, slots=True)
class LightFMFile:
    """A model and the arrays of its file, which may describe its features.

    Attributes:
        model: the parameters.
        arrays: all arrays of the file, by name.
        path: path of the file.
    """

    model: ForeignModel
    arrays: Mapping[str, Array]
    path: Path

    def describe_features(self, user_id: str, item_id: str) -> tuple[Mapped, pl.DataFrame, pl.DataFrame]:
        """Return the mapping of the features, and the tables of users and items.

        Args:
            user_id: name of the id column of users.
            item_id: name of the id column of items.

        Raises:
            DataError: Ids are missing, or a matrix has another shape.
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
                where=str(self.path),
                hint=f"Add the {side}s' ids in order of their rows, or describe each feature with --mapping",
            )
        values = self.arrays[f"{side}_ids"].reshape(-1).tolist()
        try:
            texts = [value.decode() if isinstance(value, bytes) else canonical(value) for value in values]
        except (TypeError, UnicodeDecodeError):
            raise DataError(
                f"array '{side}_ids' must have ids only", where=str(self.path), hint="Write ids as text or as integers"
            ) from None
        ids = pl.Series(id_column, texts, dtype=pl.String)
        n = len(self.model.parameters[side])
        rows = self._feature_rows(side, len(ids), n)
        if rows is None:
            if len(ids) != n:
                raise DataError(
                    f"there are {len(ids)} ids and {n} embeddings of {side}s",
                    where=str(self.path),
                    hint=f"Add the matrix '{side}_features' that the model was trained with",
                )
            return ids.to_frame()
        names, weights = rows
        return pl.DataFrame([ids, pl.Series(f"{side}_{FEATURES}", names), pl.Series(f"{side}_{WEIGHTS}", weights)])

    def _feature_rows(self, side: Side, n_rows: int, n_features: int) -> tuple[list[list[str]], list[list[float]]] | None:
        """Return numbers as text and weights of the rows' features, or None."""
        name = f"{side}_features"
        if name in self.arrays:
            dense = numbers(self.arrays, name, 2, self.path)
            row, column = np.nonzero(dense)
            shape, weights = dense.shape, dense[row, column]
        elif f"{name}_indptr" in self.arrays:
            parts = [numbers(self.arrays, f"{name}_{part}", 1, self.path) for part in ("indptr", "indices", "data")]
            indptr, column, weights = parts[0].astype(np.int64), parts[1].astype(np.int64), parts[2]
            bounds = len(indptr) > 0 and indptr[0] == 0 and indptr[-1] == len(column) == len(weights)
            if not bounds or (np.diff(indptr) < 0).any() or not ((column >= 0) & (column < n_features)).all():
                raise DataError(f"'{name}' is not a CSR matrix over {n_features} features", where=str(self.path))
            row, shape = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)), (len(indptr) - 1, n_features)
        else:
            return None
        if shape != (n_rows, n_features):
            raise DataError(f"'{name}' must be {[n_rows, n_features]}, got {list(shape)}", where=str(self.path))
        return _lists(n_rows, row, column, weights)


def read_lightfm(path: Path) -> LightFMFile:
    """Read embeddings and biases, and all other arrays of the file.

    Raises:
        DataError: An array is missing, not finite, or of another shape.
    """
    arrays = read_npz(path)
    parameters: dict[Side, Parameters] = {}
    for side in SIDES:
        factors, weights = (numbers(arrays, f"{side}_embeddings", 2, path), numbers(arrays, f"{side}_biases", 1, path))
        if len(factors) != len(weights):
            raise DataError(f"there are {len(factors)} embeddings and {len(weights)} biases of {side}s", where=str(path))
        parameters[side] = Parameters(weights, factors)
    user_k, item_k = (parameters[side].factors.shape[1] for side in SIDES)
    if user_k != item_k:
        raise DataError(f"users have {user_k} factors and items {item_k}", where=str(path))
    return LightFMFile(ForeignModel("sums", 0.0, parameters), arrays, path)


def _lists(n: int, row: Int64, column: Int64, weights: Float64) -> tuple[list[list[str]], list[list[float]]]:
    """Return columns as text and weights of each of n rows; `row` is sorted."""
    ends = np.cumsum(np.bincount(row, minlength=n))[:-1]
    names = [list(map(str, part.tolist())) for part in np.split(column, ends)[:n]]
    return names, [part.tolist() for part in np.split(weights, ends)[:n]]
