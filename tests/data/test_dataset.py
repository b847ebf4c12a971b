import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recall.config import RunConfig, parse_config
from recall.data.dataset import Dataset, load_dataset
from recall.data.split import TEST, TRAIN, VALID
from recall.errors import ConfigError, DataError, RecallError

FIELDS = {
    "user_id": {"side": "user", "kind": "categorical"},
    "item_id": {"side": "item", "kind": "categorical"},
}


def config(fields: dict[str, Any] | None = None, **data: Any) -> RunConfig:
    return parse_config({"data": data, "fields": {**FIELDS, **(fields or {})}})


def write_csv(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")


def test_events_are_sorted_by_user_time_and_file_position(tmp_path: Path) -> None:
    write_csv(tmp_path, "e.csv", "user_id,item_id,t\nb,1,5\na,2,9\na,3,1\nb,4,5\na,5,9\n")
    dataset = load_dataset(config(interactions="e.csv", time="t"), tmp_path)
    assert dataset.users["user_id"].to_list() == ["b", "a"]
    assert dataset.events["user"].to_list() == [0, 0, 1, 1, 1]
    ids = dataset.items["item_id"].gather(dataset.events["item"])
    assert ids.to_list() == ["1", "4", "3", "2", "5"]
    assert dataset.events.schema == {"user": pl.Int32, "item": pl.Int32, "weight": pl.Float32, "split": pl.Int8}


@pytest.mark.parametrize("dtype", [pl.Int64(), pl.Float64(), pl.Datetime("ms"), pl.UInt64()])
def test_the_order_is_independent_of_the_time_type(tmp_path: Path, dtype: pl.DataType) -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"user_id": rng.integers(0, 9, 200), "item_id": np.arange(200), "t": rng.integers(0, 20, 200)})
    frame.with_columns(pl.col("t").cast(dtype)).write_parquet(tmp_path / "e.parquet")
    dataset = load_dataset(config(interactions="e.parquet", time="t"), tmp_path)
    users = frame["user_id"].unique(maintain_order=True)
    expected = pl.concat([frame.filter(pl.col("user_id") == user).sort("t", maintain_order=True) for user in users])
    assert dataset.items["item_id"].gather(dataset.events["item"]).to_list() == expected["item_id"].cast(pl.String).to_list()


def test_extreme_times_are_sorted_correctly(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": ["a", "a", "a"], "item_id": ["3", "1", "2"], "t": [2**63 - 1, -(2**63), 0]})
    frame.write_parquet(tmp_path / "e.parquet")
    dataset = load_dataset(config(interactions="e.parquet", time="t"), tmp_path)
    assert dataset.items["item_id"].gather(dataset.events["item"]).to_list() == ["1", "2", "3"]


def test_the_catalogue_is_the_items_table_then_items_of_interactions(tmp_path: Path) -> None:
    write_csv(tmp_path, "e.csv", "user_id,item_id\nu,new\nu,007\nu,7\n")
    write_csv(tmp_path, "i.csv", "item_id,size\n007,1\nnever,2\n")
    field = {"size": {"side": "item", "kind": "numeric"}}
    dataset = load_dataset(config(field, interactions="e.csv", items="i.csv"), tmp_path)
    assert dataset.items.to_dict(as_series=False) == {"item_id": ["007", "never", "new", "7"], "size": [1.0, 2.0, None, None]}
    assert dataset.item_columns == ("size",)


def test_ids_of_different_types_are_joined(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": [1, 2], "item_id": ["5", "6"]}).write_parquet(tmp_path / "e.parquet")
    write_csv(tmp_path, "u.csv", "user_id,age\n2,30\n1,40\n")
    pl.DataFrame({"item_id": [6.0, 5.0]}).write_parquet(tmp_path / "i.parquet")
    field = {"age": {"side": "user", "kind": "numeric"}}
    dataset = load_dataset(config(field, interactions="e.parquet", users="u.csv", items="i.parquet"), tmp_path)
    assert dataset.users["user_id"].to_list() == ["2", "1"]
    assert dataset.items["item_id"].to_list() == ["6", "5"]
    assert dataset.events["user"].to_list() == [0, 1]
    assert dataset.events["item"].to_list() == [0, 1]


def test_ids_may_contain_any_character(tmp_path: Path) -> None:
    ids = ["a b", " a b", "ü", "u\u0308", "日本", "🙂", "a/b?c", "\u0000", "a\n", ",", '"', "NaN", "null", "1e5"]
    pl.DataFrame({"user_id": ids, "item_id": ids[::-1]}).write_parquet(tmp_path / "e.parquet")
    dataset = load_dataset(config(interactions="e.parquet"), tmp_path)
    assert dataset.users["user_id"].to_list() == ids
    assert dataset.items["item_id"].gather(dataset.events["item"]).to_list() == ids[::-1]


def test_context_columns_stay_with_their_interaction(tmp_path: Path) -> None:
    write_csv(tmp_path, "e.csv", "user_id,item_id,hour,noise\nb,x,3,q\na,y,,q\nb,z,01,q\n")
    fields = {"hour": {"side": "user", "kind": "categorical"}}
    dataset = load_dataset(config(fields, interactions="e.csv"), tmp_path)
    assert dataset.context_columns == ("hour",)
    assert dataset.events.select("item", "hour").rows() == [(0, "3"), (2, "01"), (1, None)]
    numeric = load_dataset(config({"hour": {"side": "user", "kind": "numeric"}}, interactions="e.csv"), tmp_path)
    assert numeric.events["hour"].to_list() == [3.0, 1.0, None]


def test_a_name_on_both_sides_is_two_columns(tmp_path: Path) -> None:
    write_csv(tmp_path, "e.csv", "user_id,item_id\na,x\n")
    write_csv(tmp_path, "u.csv", "user_id,code\na,007\n")
    write_csv(tmp_path, "i.csv", "item_id,code\nx,007\n")
    fields = {
        "home": {"side": "user", "kind": "categorical", "column": "code"},
        "code": {"side": "item", "kind": "numeric"},
    }
    dataset = load_dataset(config(fields, interactions="e.csv", users="u.csv", items="i.csv"), tmp_path)
    assert dataset.users["code"].to_list() == ["007"]
    assert dataset.items["code"].to_list() == [7.0]


def test_every_part_is_assigned(tmp_path: Path) -> None:
    write_csv(
        tmp_path,
        "e.csv",
        "user_id,item_id,t,part\n" + "".join(f"u{n % 2},i{n},{n},{'train' if n < 8 else 'test'}\n" for n in range(10)),
    )
    by_column = load_dataset(config(interactions="e.csv", split={"by": "column", "column": "part"}), tmp_path)
    assert by_column.events["split"].to_list() == [TRAIN] * 4 + [TEST] + [TRAIN] * 4 + [TEST]
    last = load_dataset(config(interactions="e.csv", time="t", split={"by": "last"}), tmp_path)
    assert last.events["split"].to_list() == [TRAIN, TRAIN, TRAIN, VALID, TEST] * 2
    time = load_dataset(config(interactions="e.csv", time="t", split={"by": "time", "test": 7}), tmp_path)
    assert time.events["split"].to_list() == [TRAIN] * 4 + [TEST] + [TRAIN] * 3 + [TEST] * 2
    carved = load_dataset(config(interactions="e.csv", carve=0.3), tmp_path)
    assert np.bincount(carved.events["split"]).tolist() == [7, 3]
    assert carved.select(VALID).tolist() == np.flatnonzero(carved.events["split"] == VALID).tolist()
    assert carved.training.dtype == np.int64


def test_weights_are_divided_by_their_mean(tmp_path: Path) -> None:
    write_csv(tmp_path, "e.csv", "user_id,item_id,w\na,x,2\na,y,0.5\n")
    assert load_dataset(config(interactions="e.csv"), tmp_path).events["weight"].to_list() == [1.0, 1.0]
    dataset = load_dataset(config(interactions="e.csv", weight="w"), tmp_path)
    assert dataset.events["weight"].to_list() == pytest.approx([1.6, 0.4])
    assert dataset.observation == pytest.approx(0.4)


def test_only_training_rows_determine_the_mean_weight(tmp_path: Path) -> None:
    write_csv(tmp_path, "e.csv", "user_id,item_id,w,split,y\na,x,2,train,1\na,y,6,train,1\na,z,100,test,1\na,q,8,train,0\n")
    dataset = load_dataset(config(interactions="e.csv", weight="w", split={"by": "column"}, label="y"), tmp_path)
    assert dataset.events["weight"].to_list() == [0.5, 1.5, 25.0]
    assert dataset.negatives is not None
    assert dataset.negatives["weight"].to_list() == [2.0]


def test_decay_does_not_change_the_mean_used_for_scaling(tmp_path: Path) -> None:
    write_csv(tmp_path, "e.csv", "user_id,item_id,t,w\na,x,1,30\na,y,2,30\na,z,3,30\n")
    dataset = load_dataset(config(interactions="e.csv", time="t", weight="w", half_life=1), tmp_path)
    assert (dataset.events["weight"].to_list(), dataset.observation) == ([0.25, 0.5, 1.0], 1.0)


HEAD = "user_id,item_id,t,w,split\n"


@pytest.mark.parametrize(
    ("files", "data", "error", "message"),
    [
        ({"e": HEAD}, {}, DataError, r"e\.csv: there are no interactions"),
        (
            {"e": HEAD + ",x,1,1,train\na,x,1,1,train\n"},
            {},
            DataError,
            r"column 'user_id': 1 of 2 rows have no id, first in row 1",
        ),
        (
            {"e": HEAD + "a,x,1,1,train\na,,1,1,train\n"},
            {},
            DataError,
            r"column 'item_id': 1 of 2 rows have no id, first in row 2",
        ),
        ({"e": HEAD + "a,x,,1,train\n"}, {"time": "t"}, DataError, r"column 't': 1 of 1 rows have no time"),
        ({"e": HEAD + "a,x,1,much,train\n"}, {"weight": "w"}, DataError, r"column 'w': 1 value is not a number: 'much'"),
        (
            {"e": HEAD + "a,x,1,-1,train\na,y,1,0,train\n"},
            {"weight": "w"},
            DataError,
            r"2 values are not positive: '-1', '0', first in row 1",
        ),
        ({"e": HEAD + "a,x,1,,train\n"}, {"weight": "w"}, DataError, r"1 of 1 rows have no weight, first in row 1"),
        ({"e": HEAD + "a,x,1,1,train\n"}, {"weight": "ww"}, DataError, r"no column 'ww'\. Did you mean 'w'"),
        ({"e": HEAD + "a,x,1,1,holdout\n"}, {"split": {"by": "column"}}, DataError, r"name no part of the split: 'holdout'"),
        ({"e": HEAD + "a,x,1,1,test\n"}, {"split": {"by": "column"}}, ConfigError, "leaves nothing to train on"),
        ({"e": HEAD + "a,x,1,1,train\n"}, {"split": {"by": "last"}}, ConfigError, r"data\.time"),
        (
            {"e": HEAD + "a,x,1,1,train\n", "u": "user_id\na\nb\na\nb\n"},
            {"users": "u.csv"},
            DataError,
            r"u\.csv, column 'user_id': 2 ids are in more than one row, such as 'a', 'b'",
        ),
        (
            {"e": HEAD + "a,x,1,1,train\n", "i": "item_id,size\nx,1\n,2\n"},
            {"items": "i.csv"},
            DataError,
            "1 of 2 rows have no id",
        ),
        ({"e": HEAD + "a,x,1,1,train\n", "i": "item,size\nx,1\n"}, {"items": "i.csv"}, DataError, "Did you mean 'item'"),
    ],
)
def test_invalid_tables_are_refused_with_file_column_and_examples(
    tmp_path: Path, files: dict[str, str], data: dict[str, Any], error: type[RecallError], message: str
) -> None:
    for name, text in files.items():
        write_csv(tmp_path, f"{name}.csv", text)
    with pytest.raises(error, match=message) as caught:
        load_dataset(config(interactions="e.csv", **data), tmp_path)
    assert caught.value.where
    assert caught.value.hint or "not a number" in message


def test_text_in_a_numeric_column_names_the_file(tmp_path: Path) -> None:
    write_csv(tmp_path, "e.csv", "user_id,item_id\na,x\n")
    write_csv(tmp_path, "i.csv", "item_id,price\nx,cheap\n")
    with pytest.raises(DataError, match=r"i\.csv, column 'price': 1 value is not a number: 'cheap', first in row 1"):
        load_dataset(config({"price": {"side": "item", "kind": "numeric"}}, interactions="e.csv", items="i.csv"), tmp_path)


def test_the_fingerprint_depends_on_every_value_and_nothing_else(
    tiny_dataset: Dataset, tiny_folder: Path, tiny_config: RunConfig
) -> None:
    first = tiny_dataset.fingerprint()
    assert len(first) == 64
    assert load_dataset(tiny_config, tiny_folder).fingerprint() == first
    seen = {first}
    for name in ("events", "users", "items"):
        frame = getattr(tiny_dataset, name)
        for column in frame.columns:
            changed = frame.with_columns(pl.when(pl.int_range(pl.len()) == 1).then(None).otherwise(column).alias(column))
            seen.add(replace(tiny_dataset, **{name: changed}).fingerprint())
    assert len(seen) == 1 + sum(len(frame.columns) for frame in (tiny_dataset.events, tiny_dataset.users, tiny_dataset.items))


def test_the_fingerprint_distinguishes_types_and_value_boundaries(tiny_dataset: Dataset) -> None:
    columns = [
        pl.Series("x", ["ab", "c"]),
        pl.Series("x", ["a", "bc"]),
        pl.Series("x", ["abc", None]),
        pl.Series("x", ["abc", ""]),
        pl.Series("x", [["a", "b"], ["c"]]),
        pl.Series("x", [["a"], ["b", "c"]]),
        pl.Series("x", [0, 1]),
        pl.Series("x", [False, True]),
        pl.Series("x", [0.0, 1.0]),
        pl.Series("x", [datetime.date(1970, 1, 1), datetime.date(1970, 1, 2)]),
    ]
    prints = {replace(tiny_dataset, items=column.to_frame()).fingerprint() for column in columns}
    assert len(prints) == len(columns)


def test_the_fingerprint_of_text_does_not_depend_on_its_encoding(tiny_dataset: Dataset) -> None:
    texts = pl.Series("x", ["a", None, "bc", ""] * (3 << 15))  # more than is hashed at once
    prints = [
        replace(tiny_dataset, items=texts.cast(dtype).to_frame()).fingerprint()
        for dtype in (pl.String(), pl.Enum(["bc", "a", ""]), pl.Enum(["", "a", "bc", "unused"]))
    ]
    assert len(set(prints)) == 1


LABELLED = "user_id,item_id,t,hour,y\na,1,1,1,1\na,2,2,9,0\na,3,3,2,1\nb,9,1,8,0\na,4,4,3,1\na,5,4,7,0\nc,6,5,6,0\nb,7,7,5,1\n"


def labelled(folder: Path, **data: Any) -> Dataset:
    write_csv(folder, "e.csv", LABELLED)
    fields = {"hour": {"side": "user", "kind": "numeric"}}
    return load_dataset(config(fields, interactions="e.csv", time="t", label="y", **data), folder)


def test_rows_with_label_0_are_not_interactions(tmp_path: Path) -> None:
    dataset = labelled(tmp_path)
    ids = dataset.items["item_id"]
    assert ids.gather(dataset.events["item"]).to_list() == ["1", "3", "4", "7"]
    assert dataset.events.columns == ["user", "item", "weight", "split", "hour"]
    negatives = dataset.negatives
    assert negatives is not None
    assert ids.gather(negatives["item"]).to_list() == ["2", "5", "9", "6"]
    assert dataset.users["user_id"].gather(negatives["user"]).to_list() == ["a", "a", "b", "c"]
    assert negatives["hour"].to_list() == [9.0, 7.0, 8.0, 6.0]
    assert negatives["before"].to_list() == [1, 3, 3, 4]
    assert negatives.schema == {**dataset.events.schema, "before": pl.Int64}
    write_csv(tmp_path, "plain.csv", "user_id,item_id\na,1\n")
    assert load_dataset(config(interactions="plain.csv"), tmp_path).negatives is None


def test_negatives_do_not_change_anything_else(tmp_path: Path) -> None:
    dataset = labelled(tmp_path, split={"by": "last"})
    kept = "\n".join(line for line in LABELLED.splitlines() if not line.endswith(",0"))
    write_csv(tmp_path, "e.csv", kept)
    fields = {"hour": {"side": "user", "kind": "numeric"}}
    without = load_dataset(config(fields, interactions="e.csv", time="t", split={"by": "last"}), tmp_path)
    names = ["weight", "split", "hour"]
    assert dataset.events.select(names).equals(without.events.select(names))
    for side in ("user", "item"):
        table, other = getattr(dataset, f"{side}s"), getattr(without, f"{side}s")
        ids, others = table[f"{side}_id"].gather(dataset.events[side]), other[f"{side}_id"].gather(without.events[side])
        assert ids.equals(others)


@pytest.mark.parametrize(
    ("split", "parts"),
    [
        ({"by": "none"}, [TRAIN] * 4),
        # a's row at 2 precedes the validation rows, a's at 5 follows all rows of a, b's at 9 precedes the test row, c has none
        ({"by": "last"}, [VALID, TEST, TEST, TRAIN]),
        ({"by": "time", "test": 4, "valid": 2}, [VALID, TEST, TRAIN, TEST]),
        (
            {"by": "column", "column": "hour", "train": ["1", "2", "3", "5"], "valid": ["9"], "test": ["7", "8", "6"]},
            [VALID, TEST, TEST, TEST],
        ),
    ],
)
def test_every_split_assigns_negatives(tmp_path: Path, split: dict[str, Any], parts: list[int]) -> None:
    negatives = labelled(tmp_path, split=split).negatives
    assert negatives is not None
    assert negatives["split"].to_list() == parts


def test_the_validation_share_applies_to_positives_and_negatives(tmp_path: Path) -> None:
    rows = "".join(f"u{n % 9},i{n},{n % 2}\n" for n in range(200))
    write_csv(tmp_path, "e.csv", "user_id,item_id,y\n" + rows)
    dataset = load_dataset(config(interactions="e.csv", label="y", carve=0.1), tmp_path)
    assert dataset.negatives is not None
    assert len(dataset.select(VALID)) == (dataset.negatives["split"] == VALID).sum() == 10


def test_labels_change_the_fingerprint(tmp_path: Path) -> None:
    before = labelled(tmp_path).fingerprint()
    write_csv(tmp_path, "e.csv", LABELLED.replace("b,9,1,8,0", "b,9,1,9,0"))
    fields = {"hour": {"side": "user", "kind": "numeric"}}
    assert load_dataset(config(fields, interactions="e.csv", time="t", label="y"), tmp_path).fingerprint() != before


@pytest.mark.parametrize(
    ("y", "message"), [("2", "neither 0 nor 1"), ("", "no label"), ("maybe", "not a number"), ("0", "label 1")]
)
def test_a_label_is_0_or_1(tmp_path: Path, y: str, message: str) -> None:
    write_csv(tmp_path, "e.csv", f"user_id,item_id,y\na,1,{'0' if y == '0' else '1'}\na,2,{y}\n")
    with pytest.raises(DataError, match=message) as raised:
        load_dataset(config(interactions="e.csv", label="y"), tmp_path)
    assert "column 'y'" in raised.value.where
