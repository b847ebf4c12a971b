"""The forms in which foreign models come, by name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, get_args

from recall.errors import DataError
from recall.publish.importers.array_formats import read_fm_arrays, read_lightfm
from recall.publish.importers.foreign_model import ForeignModel
from recall.publish.importers.text_formats import read_libffm, read_libfm, read_xlearn

Format = Literal["libfm", "libffm", "xlearn", "lightfm", "arrays"]
FORMATS: tuple[str, ...] = get_args(Format)

_READERS: Mapping[str, Callable[[Path], ForeignModel]] = {
    "libfm": read_libfm,
    "libffm": read_libffm,
    "xlearn": read_xlearn,
    "lightfm": lambda path: read_lightfm(path).model,
    "arrays": read_fm_arrays,
}


def read_model(kind: str, path: Path, plain: bool = False) -> ForeignModel:
    """Read a model.

    Args:
        kind: one of `FORMATS`.
        path: its file.
        plain: xLearn's instances were not normalised, which its text does not tell.

    Raises:
        DataError: the file is not what it should be, or nothing says that instances were not normalised.
    """
    if kind == "xlearn" and not plain:
        raise DataError(
            "xLearn divides scores by |x|^2 of each instance unless it is told not to, and its text does not say",
            where=str(path),
            why="no inner product of a user's and an item's vector gives such a score",
            mend="Add --no-norm if the model was trained with --no-norm (disableNorm); otherwise train it so",
        )
    return _READERS[kind](path)
