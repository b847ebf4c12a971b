"""Convert a copy of MovieLens to the three tables and a configuration.

    python scripts/prepare_movielens.py ml-1m prepared
    recall train prepared/recall.toml

Reads the 100K files (u.data, u.item, u.user, u.genre), the 1M and 10M files (*.dat) and those since 20M (*.csv). The
files are published by GroupLens (https://grouplens.org/datasets/movielens/) under their terms of use; please cite Harper and
Konstan 2015, The MovieLens Datasets: History and Context.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from recall.errors import DataError, RecallError

_RATINGS = {"user_id": pl.String, "item_id": pl.String, "rating": pl.Float64, "timestamp": pl.Int64}
_USERS = {"user_id": pl.String, "gender": pl.String, "age": pl.Int64, "occupation": pl.String, "zip": pl.String}
_YEAR = r"\((\d{4})(?:[-–]\d{0,4})?\)\s*$"
_NO_GENRES = ("unknown", "(no genres listed)")

_CONFIG = """\
# Recommend films from those that each user has rated, regardless of the rating. All settings: recall config schema.
name = "movielens"

[data]
interactions = "interactions.parquet"
{users_table}items = "items.parquet"
time = "timestamp"
split = {{ by = "last", test = 1, valid = 1 }}

[fields]
user_id = {{ side = "user", kind = "categorical" }}
{user_fields}history = {{ kind = "history" }}
item_id = {{ side = "item", kind = "categorical" }}
year = {{ side = "item", kind = "numeric", scale = "buckets" }}
genres = {{ side = "item", kind = "bag" }}
"""
_USER_FIELDS = """\
gender = { side = "user", kind = "categorical" }
age = { side = "user", kind = "numeric", scale = "buckets" }
occupation = { side = "user", kind = "categorical" }
"""


@dataclass(frozen=True, slots=True)
class Films:
    """The three tables.

    Attributes:
        interactions: user_id, item_id, rating, timestamp in unix seconds.
        users: user_id, gender, age, occupation, zip; None if the release has no user data.
        items: item_id, title without its year, year, genres as a list.
    """

    interactions: pl.DataFrame
    users: pl.DataFrame | None
    items: pl.DataFrame


def find_layout(folder: Path) -> Callable[[Path], Films] | None:
    """Return the function that reads the release of MovieLens in a folder.

    Returns None if it is missing.
    """
    layouts = {"u.data": _read_100k, "ratings.dat": _read_dat, "ratings.csv": _read_csv}
    return next((read for name, read in layouts.items() if (folder / name).is_file()), None)


def read_movielens(folder: Path) -> Films:
    """Read any release of MovieLens.

    Raises:
        DataError: a file is missing or invalid.
    """
    read = find_layout(folder)
    if read is None:
        hint = "Give the folder of the unpacked archive"
        raise DataError("there is no u.data, ratings.dat or ratings.csv here", where=str(folder), hint=hint)
    return read(folder)


def _read_100k(folder: Path) -> Films:
    genres = _split(folder / "u.genre", "|", ["genre", "place"])["genre"].to_list()
    columns = ["item_id", "name", "released", "video", "url", *genres]
    films = _split(folder / "u.item", "|", columns)
    released = films["released"].str.extract(r"(\d{4})$").cast(pl.Int64)
    flags = pl.concat_list(pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in genres).list.drop_nulls()
    items = _titled(films.select("item_id", "name", genres=flags))
    return Films(
        _typed(_split(folder / "u.data", "\t", list(_RATINGS)), _RATINGS, folder / "u.data"),
        _typed(_split(folder / "u.user", "|", ["user_id", "age", "gender", "occupation", "zip"]), _USERS, folder / "u.user"),
        items.with_columns(pl.col("year").fill_null(released)),
    )


def _read_dat(folder: Path) -> Films:
    films = _split(folder / "movies.dat", "::", ["item_id", "name", "genres"])
    users = folder / "users.dat"
    return Films(
        _typed(_split(folder / "ratings.dat", "::", list(_RATINGS)), _RATINGS, folder / "ratings.dat"),
        _typed(_split(users, "::", list(_USERS)), _USERS, users) if users.exists() else None,
        _titled(films.with_columns(pl.col("genres").str.split("|"))),
    )


def _read_csv(folder: Path) -> Films:
    ratings, films = folder / "ratings.csv", folder / "movies.csv"
    names = {"userId": "user_id", "movieId": "item_id", "title": "name"}
    return Films(
        _typed(_csv(ratings, ["userId", "movieId", "rating", "timestamp"]).rename(names, strict=False), _RATINGS, ratings),
        None,
        _titled(
            _csv(films, ["movieId", "title", "genres"])
            .rename(names, strict=False)
            .with_columns(pl.col("genres").str.split("|"))
        ),
    )


def _csv(path: Path, columns: list[str]) -> pl.DataFrame:
    try:
        return pl.read_csv(path, infer_schema=False, columns=columns)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError("the file cannot be read", where=str(path), why=str(error).splitlines()[0]) from None


def _split(path: Path, separator: str, columns: list[str]) -> pl.DataFrame:
    """Return a file without a header, its columns as text."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError("the file cannot be read", where=str(path), why=error.strerror or "") from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:  # the releases up to 1M
        text = content.decode("latin-1")
    # not splitlines, which also splits at characters that occur in Latin-1 titles
    lines = pl.Series("line", text.replace("\r\n", "\n").split("\n"), dtype=pl.String)
    lines = lines.filter(lines.str.strip_chars() != "")
    parts = lines.str.split(separator)
    wrong = lines.filter(parts.list.len() != len(columns))
    if len(wrong):
        raise DataError(
            f"{len(wrong):,} lines do not have {len(columns)} columns, such as {wrong[0]!r}",
            where=str(path),
            hint="Unpack the archive again",
        )
    return pl.DataFrame([parts.list.get(place).alias(name) for place, name in enumerate(columns)])


def _typed(frame: pl.DataFrame, types: dict[str, type[pl.DataType]], path: Path) -> pl.DataFrame:
    try:
        return frame.select(pl.col(name).cast(dtype) for name, dtype in types.items())
    except pl.exceptions.InvalidOperationError as error:
        raise DataError("a column does not hold numbers", where=str(path), why=str(error).splitlines()[0]) from None


def _titled(films: pl.DataFrame) -> pl.DataFrame:
    return films.select(
        "item_id",
        title=pl.col("name").str.replace(_YEAR, "").str.strip_chars(),
        year=pl.col("name").str.extract(_YEAR).cast(pl.Int64),
        genres=pl.col("genres").list.set_difference(list(_NO_GENRES)).list.sort(),
    )


def prepare(movielens: Path, out: Path, min_rating: float = 0.0) -> dict[str, int]:
    """Write interactions, users and items as Parquet, and a missing recall.toml."""
    films = read_movielens(movielens)
    kept = films.interactions.filter(pl.col("rating") >= min_rating)
    write_tables(Films(kept, films.users, films.items), out)
    users = kept["user_id"].n_unique() if films.users is None else len(films.users)
    return {"interactions": len(kept), "users": users, "items": len(films.items)}


def write_tables(films: Films, folder: Path) -> None:
    """Write interactions, users and items as Parquet, and a missing recall.toml."""
    folder.mkdir(parents=True, exist_ok=True)
    films.interactions.write_parquet(folder / "interactions.parquet")
    films.items.write_parquet(folder / "items.parquet")
    if films.users is not None:
        films.users.write_parquet(folder / "users.parquet")
    config = folder / "recall.toml"
    if not config.exists():  # keep an edited file
        table, fields = ('users = "users.parquet"\n', _USER_FIELDS) if films.users is not None else ("", "")
        config.write_text(_CONFIG.format(users_table=table, user_fields=fields))


def main() -> int:
    """Parse the command line, write the tables, and print what was written as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("movielens", type=Path, help="folder with the files of GroupLens")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--min-rating", type=float, default=0.0, help="drop lower ratings (default: keep all)")
    arguments = parser.parse_args()
    try:
        print(json.dumps(prepare(arguments.movielens, arguments.out, arguments.min_rating)))
    except RecallError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
