from pathlib import Path

import polars as pl
import pytest

from recall.config import DataConfig
from recall.data.tables import read_table, read_tables
from recall.errors import DataError


def test_parquet_keeps_types_and_csv_is_text(tmp_path: Path) -> None:
    frame = pl.DataFrame({"id": [7, 8], "share": [0.5, None]})
    frame.write_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("id,share,tags\n007,0.5,a|b\n8,,\n")
    assert read_table(tmp_path / "a.parquet").collect(["id", "share"]).equals(frame)
    read = read_table(tmp_path / "a.csv").collect(["tags", "id", "share", "id"])
    assert read.to_dict(as_series=False) == {"tags": ["a|b", None], "id": ["007", "8"], "share": ["0.5", None]}


def test_a_parquet_folder_is_one_table_in_name_order(tmp_path: Path) -> None:
    folder = tmp_path / "events.parquet"
    folder.mkdir()
    for part in (2, 0, 1):
        pl.DataFrame({"part": [part, part]}).write_parquet(folder / f"part-{part}.parquet")
    (folder / "_SUCCESS").touch()
    assert read_table(folder).collect(["part"])["part"].to_list() == [0, 0, 1, 1, 2, 2]


def test_special_types_are_converted(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    frame = pl.DataFrame(
        {
            "kind": pl.Series(["x", "y"], dtype=pl.Categorical),
            "price": pl.Series(["1.50", "2.00"]).cast(pl.Decimal(10, 2)),
            "pair": pl.Series([["x", "y"], ["x", "x"]], dtype=pl.Array(pl.Enum(["x", "y"]), 2)),
            "nothing": pl.Series([None, None], dtype=pl.Null),
        }
    )
    frame.write_parquet(path)
    read = read_table(path).collect(frame.columns)
    assert read.schema == {"kind": pl.String, "price": pl.Float64, "pair": pl.List(pl.String), "nothing": pl.String}
    assert read["price"].to_list() == [1.5, 2.0]


def test_a_missing_file_gets_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").touch()
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / "interaction.csv")
    assert caught.value.where == str(tmp_path / "interaction.csv")
    assert caught.value.hint == "Did you mean 'interactions.csv'?"
    with pytest.raises(DataError, match="Correct the path"):
        read_table(tmp_path / "nowhere" / "a.csv")


def test_a_missing_column_gets_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id\n1,2\n")
    with pytest.raises(DataError, match=r"a\.csv: there is no column 'userid'\. Did you mean 'user_id'\?"):
        read_table(tmp_path / "a.csv").collect(["userid"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", b"no parquet at all", "cannot be read"),
        ("a.csv", b"", "cannot be read"),
        ("a.csv", b"a,b\n1,2,3\n", "cannot be read"),
        ("a.csv", b"a,b\n\xff\xfe,1\n", "cannot be read"),
        ("a.json", b"{}", "the file has no columns"),
        ("a.xlsx", b"PK", "must be .parquet, .csv"),
    ],
)
def test_an_invalid_table_file_is_refused_by_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_table(path).collect(["a", "b"])
    assert message in caught.value.what
    assert caught.value.where == str(path)
    assert caught.value.hint


def test_a_truncated_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"a": list(range(1000))}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        read_table(path).collect(["a"])


def test_an_unsupported_type_is_refused_only_if_used(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pl.DataFrame({"a": [1], "blob": [b"x"], "thing": [{"x": 1}]}).write_parquet(path)
    table = read_table(path)
    assert table.collect(["a"]).height == 1
    with pytest.raises(DataError, match="column 'blob' is of type Binary"):
        table.collect(["blob"])
    with pytest.raises(DataError, match="column 'thing' is of type Struct"):
        table.collect(["thing"])


def test_only_configured_tables_are_loaded(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": [1]}).write_parquet(tmp_path / "interactions.parquet")
    pl.DataFrame({"item_id": [1]}).write_parquet(tmp_path / "things.parquet")
    tables = read_tables(DataConfig(items="things.parquet"), tmp_path)
    assert list(tables.named) == ["interactions", "items"]
    assert tables.users is None
    assert tables.items is not None
    assert tables.items.columns == ["item_id"]


def test_only_the_configured_null_texts_are_missing_in_csv(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,age\n1,NA\n2,\\N\n3,na\n4,\n5,NAN\n")
    assert read_table(tmp_path / "a.csv").collect(["age"])["age"].to_list() == ["NA", "\\N", "na", None, "NAN"]
    read = read_table(tmp_path / "a.csv", ["NA", "\\N"]).collect(["age"])["age"].to_list()
    assert read == [None, None, "na", None, "NAN"]


def write_three(folder: Path) -> DataConfig:
    (folder / "e.csv").write_text("userId,movieId,device\n1,10,NA\n2,11,tv\n")
    (folder / "u.csv").write_text("id,age\n1,NA\n2,30\n")
    (folder / "i.csv").write_text("movie,title\n10,Heat\n11,NA\n")
    return DataConfig(
        interactions="e.csv",
        users="u.csv",
        items="i.csv",
        user_id="userId",
        item_id="movieId",
        id_in_users="id",
        id_in_items="movie",
        nulls=("NA",),
    )


def test_id_names_are_per_table_and_null_texts_are_shared(tmp_path: Path) -> None:
    tables = read_tables(write_three(tmp_path), tmp_path)
    assert tables.users is not None
    assert tables.items is not None
    assert tables.interactions.collect(["device"])["device"].to_list() == [None, "tv"]
    assert tables.users.collect(["userId", "age"]).rows() == [("1", None), ("2", "30")]
    assert tables.items.collect(["movieId", "title"]).rows() == [("10", "Heat"), ("11", None)]
    assert tables.users.where("userId") == f"{tmp_path / 'u.csv'}, column 'id'"  # as in the file


def test_a_missing_or_ambiguous_id_column_is_refused(tmp_path: Path) -> None:
    config = write_three(tmp_path)
    with pytest.raises(DataError, match=r"i\.csv: there is no column 'movies'\. Did you mean 'movie'\?"):
        read_tables(config.model_copy(update={"id_in_items": "movies"}), tmp_path)
    (tmp_path / "u.csv").write_text("id,userId\n1,7\n")
    with pytest.raises(DataError, match="column 'id' holds the id, and there is also a column 'userId'"):
        read_tables(config, tmp_path)


@pytest.mark.parametrize("head", ["user_id,item_id,user_id", '"item_id",user_id,item_id', "a,b,c,b,a"])
def test_duplicate_column_names_are_refused(tmp_path: Path, head: str) -> None:
    (tmp_path / "e.csv").write_text(f"{head}\n{','.join('x' for _ in head.split(','))}\n")
    names = head.replace('"', "").split(",")
    twice = ", ".join(repr(name) for name in sorted(set(names)) if names.count(name) > 1)
    with pytest.raises(DataError, match=f"two columns have one name: {twice} .the header is {', '.join(names)}"):
        read_table(tmp_path / "e.csv")
