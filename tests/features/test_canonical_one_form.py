"""One canonical form per value, in training and in every input of a served bundle."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest

from recall.bundle.manifest import Manifest
from recall.bundle.reader import load_bundle
from recall.cli import main
from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.errors import DataError, RequestError
from recall.features.canonical import UNTYPED
from recall.features.encoder import FeatureEncoder
from recall.publish.export import export
from recall.publish.rebuild import rebuild
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.serving.rerank.channels import Channels, ListChannel
from recall.serving.rerank.rules import Pin, Quota
from recall.store.users.profiles import Interaction, User
from tests.conftest import random_model

CONFIG = {
    "data": {
        "time": "at",
        "interactions": "e.csv",
        "users": "u.csv",
        "items": "i.csv",
        "attributes": ["published", "day", "code", "stamp"],
    },
    "index": {"boosts": ["shelf=3.0"]},
    "fields": {
        "user_id": {"side": "user", "kind": "categorical"},
        "hour": {"side": "user", "kind": "categorical"},
        "member": {"side": "user", "kind": "hashed", "buckets": 1000},
        "when": {"side": "user", "kind": "categorical"},
        "visits": {"side": "user", "kind": "bag"},
        "plan": {"side": "user", "kind": "categorical"},
        "recent": {"kind": "history", "lags": [[1, 2]]},
        "item_id": {"side": "item", "kind": "categorical"},
        "shelf": {"side": "item", "kind": "categorical"},
        "sizes": {"side": "item", "kind": "bag"},
        "price": {"side": "item", "kind": "numeric"},
    },
}
STAMP = 1_700_000_000_123_456_000


def write_tables(folder: Path) -> None:
    """Write tables as pandas does for columns with missing values: ids, numbers and booleans as floats and `True`."""
    rows = []
    for n in range(60):
        hour = "" if n % 7 == 0 else f"{n % 3}.0"
        rows.append(f"{n % 5}.0,{n % 12 + 10}.0,{hour},{bool(n % 2)},2024-01-0{n % 2 + 1} 00:00:00,{n % 4}.0|9.0,{n}")
    (folder / "e.csv").write_text("user_id,item_id,hour,member,when,visits,at\n" + "\n".join(rows) + "\n")
    (folder / "u.csv").write_text("user_id,plan\n" + "".join(f"{n},{'007' if n else '1e5'}\n" for n in range(5)))
    items = [
        f"{n + 10},{n % 4}.0,{n % 3}.5|7.0,{n}.99,2026-03-29 0{n % 10}:00:00,2026-03-{n + 10},0{n},{STAMP + n}"
        for n in range(12)
    ]
    (folder / "i.csv").write_text("item_id,shelf,sizes,price,published,day,code,stamp\n" + "\n".join(items) + "\n")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one-form")
    write_tables(folder)
    config = parse_config(CONFIG)
    dataset = load_dataset(config, folder)
    encoder = FeatureEncoder.fit(dataset)
    export(random_model(encoder), encoder, dataset, config, folder / "root")
    return folder / "root"


@pytest.fixture
def served(published: Path, tmp_path: Path) -> Iterator[Recommender]:
    import shutil

    shutil.copytree(published, tmp_path / "root")
    recommender = Recommender.load(tmp_path / "root")
    yield recommender
    recommender.close()


def test_the_bundle_records_the_types_of_all_columns(published: Path) -> None:
    bundle = load_bundle(published)
    assert bundle.encoder.types.users == {
        "user_id": "integer",
        "plan": "text",
        "hour": "integer",
        "member": "boolean",
        "when": "time",
        "visits": "list of integer",
    }
    types = {"item_id": "integer", "shelf": "integer", "sizes": "list of float64", "price": "float64"}
    attributes = {"published": "time", "day": "date", "code": "text", "stamp": "integer"}
    assert bundle.encoder.types.items == {**types, **attributes}
    columns = Manifest.read(bundle.folder).columns
    assert columns is not None
    assert (columns.items, columns.attributes) == (types, attributes)
    assert columns.contexts == {"hour": "integer", "member": "boolean", "when": "time", "visits": "list of integer"}


@pytest.mark.parametrize(
    ("column", "forms", "other"),
    [
        ("hour", [1, 1.0, "1", "1.0", "1.00"], 2),
        ("member", [True, "True", "true", "TRUE"], False),
        ("when", ["2024-01-01", "2024-01-01 00:00:00", "2024-01-01T00:00:00Z", "2024-01-01T02:00+02:00"], "2024-01-02"),
        ("visits", [[1, 9.0], ["1.0", "9"], "1|9", "1.0|9.0"], [2]),
        ("user_id", ["3", "3.0"], "4"),
    ],
)
def test_a_request_value_may_have_any_notation(published: Path, column: str, forms: list[object], other: object) -> None:
    recommender = Recommender.load(published)
    try:

        def asked(value: object) -> tuple[object, ...]:
            given: Mapping[str, object] = {} if column == "user_id" else {column: value}
            user = value if column == "user_id" else None
            answer = recommender.recommend(Request(user_id=user, context=given, n=12, exclude_seen=False))  # type: ignore[arg-type]
            return answer.items, answer.unknown, answer.user

        assert len({asked(value) for value in forms}) == 1
        assert asked(forms[0])[1] == ()
        assert asked(forms[0]) != asked(other)
    finally:
        recommender.close()


def test_non_numeric_text_is_unchanged(served: Recommender) -> None:
    for value, unknown in (("007", ()), ("7", ("plan",)), (7, ("plan",)), ("1e5", ()), (100000.0, ("plan",))):
        assert served.recommend(Request(features={"plan": value})).unknown == unknown


def test_item_ids_may_have_any_notation(served: Recommender) -> None:
    everything = Request(user_id="3", n=12, exclude_seen=False)
    listed = [item.item_id for item in served.recommend(everything).items]
    assert sorted(listed) == [str(n + 10) for n in range(12)]
    for form in ("12", "12.0"):
        request = Request(user_id="3", n=12, exclude_seen=False, exclude=[form], history=[form])
        assert "12" not in [item.item_id for item in served.recommend(request).items]
        assert served.recommend(request).warnings == ()
        assert [item.item_id for item in served.recommend(Request(allow=[form])).items] == ["12"]
        assert served.score(everything, [form]).items[0].item_id == "12"
        assert served.explain(everything, form).item_id == "12"
        assert served.similar(form, Request(n=1)).items == served.similar("12", Request(n=1)).items
        assert served.item(form).items[0].item_id == "12"
    first = served.recommend(Request(user_id="3", history=["12"], exclude_seen=False))
    assert first.items == served.recommend(Request(user_id="3", history=["12.0"], exclude_seen=False)).items


def test_an_upserted_item_equals_the_trained_one(served: Recommender) -> None:
    before = served.item("12").items[0].features
    assert before == {
        "shelf": "2",
        "sizes": "2.5|7",
        "price": 2.99,
        "published": "2026-03-29T02:00:00",
        "day": "2026-03-12",
        "code": "02",
        "stamp": str(STAMP + 2),
    }
    vector = served.score(Request(user_id="3"), ["12"])
    served.items.upsert(
        {
            "12.0": {
                "shelf": 2.0,
                "sizes": ["2.50", 7],
                "price": "2.99",
                "published": "2026-03-29T04:00:00+02:00",
                "day": "2026-03-12T00:00:00Z",
                "code": "02",
                "stamp": STAMP + 2,
            }
        }
    )
    assert served.item("12").items[0].features == before
    assert served.score(Request(user_id="3"), ["12"]).items == vector.items
    assert served.items.delete(["12.0"]).known == 1
    assert served.item("12").items == ()


@pytest.mark.parametrize(
    ("filter_", "matching"),
    [
        ({"shelf": 3}, [3, 7, 11]),
        ({"shelf": 3.0}, [3, 7, 11]),
        ({"shelf": "3.0"}, [3, 7, 11]),
        ({"shelf": {"gte": "2", "lt": "10"}}, [2, 3, 6, 7, 10, 11]),
        ({"sizes": {"any": [2.5]}}, [2, 5, 8, 11]),
        ({"sizes": {"all": ["7.0", "0.50"]}}, [0, 3, 6, 9]),
        ({"price": 9.99}, [9]),
        ({"price": {"gt": 9.98, "lte": 9.99}}, [9]),
        ({"published": "2026-03-29T10:00:00+02:00"}, [8]),
        ({"published": {"gte": "2026-03-29T08:00:00Z"}}, [8, 9]),
        ({"published": {"lt": "2026-03-29 01:00:00.000000001"}}, [0, 1, 10, 11]),
        ({"day": "2026-03-12T00:00:00Z"}, [2]),
        ({"day": {"gt": "2026-03-19T23:00:00-01:00", "lt": "2026-03-21T00:00:00.5Z"}}, [11]),
        ({"code": "02"}, [2]),
        ({"code": 2}, []),
        ({"stamp": STAMP + 7}, [7]),
        ({"stamp": str(STAMP + 7)}, [7]),
        ({"stamp": {"gte": STAMP + 10}}, [10, 11]),
        ({"stamp": {"gt": STAMP + 9.0}}, list(range(1, 12))),  # the nearest float is STAMP
    ],
)
def test_a_filter_compares_typed_values(published: Path, filter_: dict[str, object], matching: list[int]) -> None:
    recommender = Recommender.load(published)
    try:
        answer = recommender.recommend(Request(n=12, filter=filter_))
        assert sorted(item.item_id for item in answer.items) == [str(n + 10) for n in matching]
    finally:
        recommender.close()


def test_an_item_in_two_notations_is_a_duplicate(served: Recommender) -> None:
    with pytest.raises(RequestError, match=r"/items/1/item_id: item '99' is there twice \('99\.0' is the same id\)"):
        served.items.upsert({"99": {"price": 1.0}, "99.0": {"price": 2.0}})
    assert served.items.current().sequence == 0


def test_the_command_line_accepts_ids_in_any_notation(served: Recommender, capsys: pytest.CaptureFixture[str]) -> None:
    root = served.bundle.folder.parents[1]
    (root / "more.csv").write_text("item_id,price\n99,1\n99.0,2\n")
    for command, code in ((["upsert", root, root / "more.csv"], 65), (["delete", root, "10", "10.0", "--json"], 0)):
        with pytest.raises(SystemExit) as ended:
            main(["items", *map(str, command)])
        assert (ended.value.code or 0) == code
    shown = capsys.readouterr()
    assert "item '99' is there twice" in " ".join(shown.err.split())
    assert orjson.loads(shown.out)["deleted"] == 1
    assert orjson.loads(shown.out)["not there"] == 0


def test_a_time_filter_refuses_invalid_times(served: Recommender) -> None:
    with pytest.raises(RequestError, match="column 'published' holds dates or times, not other text"):
        served.recommend(Request(filter={"published": "soon"}))


def test_rules_and_boosts_treat_live_and_published_items_alike(served: Recommender) -> None:
    served.items.upsert({"99": {"shelf": "3.0", "published": "2026-03-29T03:00:00Z"}})
    listed = served.recommend(Request(n=13, rules=[Quota("shelf", 1)])).items
    assert len(listed) == 4
    boosted = served.recommend(Request(n=4, boosts={"shelf=3.0": 1e3})).items
    assert sorted(item.item_id for item in boosted) == ["13", "17", "21", "99"]
    latest = {item.item_id for item in served.recommend(Request(n=13, filter={"published": "2026-03-29T03:00:00Z"})).items}
    assert latest == {"13", "99"}


def test_changed_users_are_stored_in_canonical_form(served: Recommender) -> None:
    assert served.users.put(User("3.0", {"plan": "007"}, history=["12.0"])).known == 1
    assert served.users.log_interactions([Interaction("3", "13.0")]).known == 1
    for form in ("3", "3.0"):
        record = served.users.get(form)
        assert record is not None
        assert record.history == ("13", "12")
    assert served.users.ids().count("3") == 1
    assert served.users.delete(["3.0"]).known == 1
    assert served.users.get("3") is None


@pytest.mark.parametrize("value", ["", " ", "\t\u00a0"])
def test_an_id_that_is_empty_or_blank_is_refused_everywhere(served: Recommender, value: str) -> None:
    for ask in (
        lambda: served.recommend(Request(user_id=value)),
        lambda: served.recommend(Request(exclude=["12", value])),
        lambda: served.recommend(Request(allow=[value])),
        lambda: served.recommend(Request(history=[value])),
        lambda: served.items.upsert({value: {"shelf": 1}}),
        lambda: served.items.delete([value]),
        lambda: served.users.put(User(value)),
        lambda: served.users.upsert([User("3", history=[value])]),
        lambda: served.users.log_interactions([Interaction("3", value)]),
        lambda: served.users.delete([value]),
        lambda: served.score(Request(), [value]),
    ):
        with pytest.raises(RequestError, match=r"the id is empty|the id is blank"):
            ask()


@pytest.mark.parametrize("file", ["i.csv", "i.parquet"])
def test_an_items_table_without_an_id_in_a_row_is_refused_with_the_row(published: Path, tmp_path: Path, file: str) -> None:
    frame = pl.read_csv(published.parent / "i.csv", infer_schema=False)
    frame = frame.with_columns(item_id=pl.Series(["12", "", " ", *frame["item_id"].to_list()[3:]]))
    frame.write_csv(tmp_path / file, quote_style="always") if file.endswith("csv") else frame.write_parquet(tmp_path / file)
    with pytest.raises(DataError, match="2 of 12 rows have no id, rows 2, 3"):
        rebuild(published, tmp_path / file, tmp_path / "root")


def test_a_rebuild_uses_the_column_types_of_training(published: Path, tmp_path: Path) -> None:
    frame = pl.read_csv(published.parent / "i.csv", infer_schema=False).with_columns(
        pl.col("item_id").cast(pl.Float64),
        pl.col("shelf").cast(pl.Float64).cast(pl.Int64),
        pl.col("price").cast(pl.Float32),
        pl.col("published").str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="ns").dt.replace_time_zone("UTC"),
        pl.col("day").str.to_date("%Y-%m-%d"),
        pl.col("stamp").cast(pl.Int64),
        pl.col("sizes").str.split("|").cast(pl.List(pl.Float64)),
    )
    frame.write_parquet(tmp_path / "i.parquet")
    report = rebuild(published, tmp_path / "i.parquet", tmp_path / "root")
    assert (report.added, report.removed, report.changed, report.kept) == ((), (), (), 12)
    recommender = Recommender.load(tmp_path / "root")
    try:
        for filter_ in ({"shelf": "3.0"}, {"shelf": 3}):
            answer = recommender.recommend(Request(n=12, filter=filter_))
            assert sorted(item.item_id for item in answer.items) == ["13", "17", "21"]
        assert len(recommender.recommend(Request(filter={"price": 9.99})).items) == 1
        assert len(recommender.recommend(Request(filter={"published": "2026-03-29T10:00:00+02:00"})).items) == 1
    finally:
        recommender.close()


def test_a_time_column_refuses_other_text_from_any_source(published: Path, served: Recommender, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="the value of column 'day' is not a date, such as 2026-01-31"):
        served.items.upsert({"12": {"day": "soon"}})
    frame = pl.read_csv(published.parent / "i.csv", infer_schema=False).with_columns(day=pl.lit("soon"))
    frame.write_csv(tmp_path / "i.csv")
    with pytest.raises(DataError, match="1 different values are not a date, such as 2026-01-31: 'soon'"):
        rebuild(published, tmp_path / "i.csv", tmp_path / "root")


def test_assumptions_about_text_are_reported(published: Path) -> None:
    dataset = load_dataset(parse_config(CONFIG), published.parent)
    said = {(one.table, one.column): one.message for one in dataset.assumptions}
    assert said["interactions", "hour"] == "whole numbers written with .0 are read as integers: '1.0' is '1'"
    assert said["interactions", "item_id"].endswith("'10.0' is '10'")
    assert said["interactions", "member"] == "true and false are read as truth values in any case: 'False' is 'false'"
    assert said["items", "published"].startswith("texts are read as moments, in UTC unless they state a zone")
    assert {column for _, column in said} == {
        *("user_id", "item_id", "hour", "member", "when", "visits", "shelf", "sizes", "published")
    }


def test_a_data_set_can_be_read_with_the_types_of_a_bundle(published: Path) -> None:
    config = parse_config(CONFIG)
    again = load_dataset(config, published.parent, load_bundle(published).encoder.types)
    assert again.items["item_id"].to_list() == [str(n + 10) for n in range(12)]
    assert again.assumptions == ()
    older = load_dataset(config, published.parent, UNTYPED)
    assert older.events["hour"].drop_nulls().unique().sort().to_list() == ["0.0", "1.0", "2.0"]


@pytest.mark.parametrize(
    ("parts", "where"),
    [
        ({"rules": [Pin({"11": 1, "12": 2, "11.0": 3})]}, "/rules/0/items"),
        ({"channels": Channels([ListChannel(["11", "12", "11.0"])])}, "/channels/lists/0/items"),
    ],
)
def test_two_forms_of_one_id_in_a_list_are_refused(served: Recommender, parts: dict[str, Any], where: str) -> None:
    with pytest.raises(RequestError, match=r"'11' and '11\.0' are the same item") as raised:
        served.recommend(Request(n=5, **parts))
    assert raised.value.where == where


@pytest.mark.parametrize(
    ("parts", "reasons"),
    [
        ({"exclude": ["12", "11.0"]}, [("excluded", "/exclude/1")]),
        ({"history": ["12", "11.0"]}, [("seen", "/history/1")]),
        ({"exclude": ["11.0"], "history": ["11.00"]}, [("excluded", "/exclude/0"), ("seen", "/history/0")]),
        ({"allow": ["11.0", "12"]}, []),
        ({"allow": ["12"]}, [("allow", "/allow")]),
    ],
)
def test_any_form_of_an_id_explains_an_absence(
    served: Recommender, parts: dict[str, Any], reasons: list[tuple[str, str]]
) -> None:
    found = served.why_not(Request(n=12, **parts), "11")
    assert [(one.kind, one.where) for one in found.reasons] == reasons
