from pathlib import Path

import polars as pl
import pytest

from recall.data.scaffold.draft import draft
from recall.data.scaffold.id_columns import find_table_id
from recall.data.scaffold.survey import survey
from recall.data.tables import Table
from recall.errors import DataError


def table(frame: pl.DataFrame) -> Table:
    return Table(Path("items"), frame.lazy(), frame.schema)


@pytest.mark.parametrize(
    ("columns", "user", "item"),
    [
        (["SessionId", "Time", "ItemId"], "SessionId", "ItemId"),
        (["email", "product_uuid", "session"], "email", "product_uuid"),
        (["device", "visitor", "article"], "visitor", "article"),
        (["顧客番号", "商品コード", "商品名"], "顧客番号", "商品コード"),
        (["고객번호", "상품코드"], "고객번호", "상품코드"),
        (["Customer Card", "Receipt No", "SKU"], "Customer Card", "SKU"),
        (["client_id", "page_url"], "client_id", "page_url"),
    ],
)
def test_ids_are_found_by_name_and_the_best_name_wins(columns: list[str], user: str, item: str) -> None:
    frame = pl.DataFrame({name: [f"{name}{row}" for row in range(9)] for name in columns})
    found = survey({"interactions": frame})
    assert (found.user_id, found.item_id) == (user, item)


@pytest.mark.parametrize(
    ("columns", "ids", "found"),
    [
        ({"customer": 90, "product": 400, "minutes": 400}, {"product": 400}, ("customer", "product")),
        ({"user": 190, "movie": 150}, {"movie": 200}, ("user", "movie")),
        ({"user": 190, "code": 150}, {"code": 200}, ("user", "code")),
    ],
)
def test_numbers_that_are_ids_by_chance_are_not_ids(
    columns: dict[str, int], ids: dict[str, int], found: tuple[str, str]
) -> None:
    frame = pl.DataFrame({name: [row * 7 % most for row in range(2_000)] for name, most in columns.items()})
    items = pl.DataFrame({name: range(most) for name, most in ids.items()}).with_columns(genre=pl.lit("x"))
    survey_ = survey({"interactions": frame, "items": items})
    assert (survey_.user_id, survey_.item_id) == found


@pytest.mark.parametrize(("items", "item"), [(400, 0), (200, 0), (700, 0), (500, 1)])
def test_without_a_header_the_other_tables_say_which_id_comes_first(tmp_path: Path, items: int, item: int) -> None:
    rows = [(1 + row * 3 % items, 1 + row * 11 % 500) for row in range(3_000)]
    (tmp_path / "interactions.csv").write_text("".join(f"{first},{second}\n" for first, second in rows))
    for name, most in (("users", 500), ("items", items)):
        (tmp_path / f"{name}.csv").write_text(f"{name[:-1]}_id,a\n" + "".join(f"{row},x\n" for row in range(1, most + 1)))
    found = survey({name: tmp_path / f"{name}.csv" for name in ("interactions", "users", "items")})
    read = found.tables["interactions"].collect([found.item_id, found.user_id]).row(3)
    assert read == tuple(map(str, rows[3] if item == 0 else rows[3][::-1]))
    header = found.formats["interactions"].reasons["header"]
    assert ("assumed: the user comes first" in header) == (item == 1)  # both tables hold the ids of both


def test_ratings_are_not_ids_because_low_numbers_are(tmp_path: Path) -> None:
    rows = [(1 + row * 11 % 500, 1 + row % 5, 1 + row * 7 % 400) for row in range(3_000)]
    (tmp_path / "interactions.csv").write_text("".join(f"{','.join(map(str, row))}\n" for row in rows))
    for name, most in (("users", 500), ("items", 400)):
        (tmp_path / f"{name}.csv").write_text(f"{name[:-1]}_id,a\n" + "".join(f"{row},x\n" for row in range(1, most + 1)))
    found = survey({name: tmp_path / f"{name}.csv" for name in ("interactions", "users", "items")})
    assert "assumed: the user comes first, then the item" in found.formats["interactions"].reasons["header"]


def test_ids_of_the_other_table_count_more_than_a_name_that_holds_none() -> None:
    frame = pl.DataFrame(
        {"user": range(60), "movie": [f"Part {row}" for row in range(60)], "ref": [f"m{row % 20}" for row in range(60)]}
    )
    found = survey({"interactions": frame, "items": pl.DataFrame({"key": [f"m{row}" for row in range(30)]})})
    assert found.item_id == "ref"


def test_one_column_is_not_the_id_of_both_users_and_items() -> None:
    frame = pl.DataFrame({"user_item_id": ["a", "b"], "score": [1, 2]})
    with pytest.raises(DataError, match="'user_item_id' would be the id of both") as caught:
        survey({"interactions": frame})
    assert "--item-id" in caught.value.hint


def test_ids_of_a_table_may_be_written_as_floats_be_repeated_and_be_missing_in_some_rows() -> None:
    ids = pl.Series("item", [str(row) for row in range(20)])
    items = pl.DataFrame({"code": [*(f"{row}.0" for row in range(20)), "3.0", None], "rank": [1] * 22, "sale": [True] * 22})
    assert find_table_id(table(items), ids, "item") == "code"
    with pytest.raises(DataError, match="no column holds their ids"):
        find_table_id(table(items.select("rank", "sale")), ids, "item")
    few = pl.DataFrame({"sku": [str(row) for row in range(15, 90)], "rank": range(75)})
    assert find_table_id(table(few), ids, "item") == "sku"  # by its name


def test_the_only_codes_that_recur_are_the_users() -> None:
    rows = range(1_000)
    columns = {
        "ticket": [f"T{100_000 + row}" for row in rows],
        "carte": [str(20_000_000 + row * 37 % 311 * 7_919) if row % 9 else None for row in rows],
        "article": [f"a{row * 11 % 130}" for row in rows],
        "gencod": [str(3_000_000_000_000 + row * 11 % 130) for row in rows],  # follows from the item
        "jour": [f"2024{1 + row % 12:02}{1 + row % 27:02}" for row in rows],
    }
    found = survey({"interactions": pl.DataFrame(columns)})
    assert (found.user_id, found.item_id) == ("carte", "article")
    with pytest.raises(DataError, match="there is no column 'user_id'"):
        survey({"interactions": pl.DataFrame({**columns, "dossier": columns["carte"]})})  # either may be the user


def test_ids_of_items_in_another_spelling_are_found_and_joined(tmp_path: Path) -> None:
    rows = "".join(f"{n * 7 % 90},{n % 40:07},KG-{n * 11 % 50:03},N\n" for n in range(300))
    (tmp_path / "kontakty.csv").write_text(f"lp,nr_klienta,kod_oferty,odp\n{rows}")
    (tmp_path / "oferty.csv").write_text("kod,rodzina\n" + "".join(f"kg-{n:03},{n % 3}\n" for n in range(50)))
    (tmp_path / "klienci.csv").write_text("nr_klienta,wiek\n" + "".join(f"{n},{n % 30}\n" for n in range(40)))
    names = {"interactions": "kontakty", "users": "klienci", "items": "oferty"}
    found = survey({name: tmp_path / f"{file}.csv" for name, file in names.items()})
    assert (found.user_id, found.item_id, found.table_ids["items"]) == ("nr_klienta", "kod_oferty", "kod")
    assert found.tables["users"].collect(["nr_klienta"])["nr_klienta"][7] == "0000007"
    assert found.tables["items"].collect(["kod"])["kod"][7] == "KG-007"


def test_ids_are_joined_whatever_divides_or_precedes_their_digits() -> None:
    numbers = [f"{number * 104_729 % 10**9:09}" for number in range(1, 200)]
    cards = [f"{one[:3]}.{one[3:6]}.{one[6:]}-07" for one in numbers]
    offers = [f"OFF-2024/{number:05}" for number in range(1_000, 1_099)]
    frame = pl.DataFrame(
        {"user_id": [*cards, *cards, "total"], "offer_id": [offers[row % 99] for row in range(398)] + ["total"]}
    )
    users = pl.DataFrame({"user_id": [str(int(f"{one}07")) for one in numbers], "age": range(199)})
    items = pl.DataFrame({"offer_id": [offer.removeprefix("OFF-") for offer in offers], "pay": range(99)})
    tables = survey({"interactions": frame, "users": users, "items": items}).tables
    for name, id_ in (("users", "user_id"), ("items", "offer_id")):
        own_ids = tables["interactions"].column(id_).unique()
        assert set(own_ids) - set(tables[name].column(id_)) == {"total"}
        assert own_ids.n_unique() == 1 + len(tables[name].column(id_))


def test_ids_that_differ_in_how_they_are_written_are_shown() -> None:
    items = pl.DataFrame({"sku": [f"A-{row:03}" for row in range(9)], "rank": range(9)})
    with pytest.raises(DataError, match="'sku' holds them in another spelling: 'A-000' there") as caught:
        find_table_id(table(items), pl.Series("item", [f"a-{row:03}" for row in range(9)]), "item")
    assert caught.value.hint == "Write them in one way in both tables"


def test_a_column_for_each_item_is_explained(tmp_path: Path) -> None:
    header = ",".join(f"Movie {number}" for number in range(30))
    marks = [[str(user % 5) if (user + number) % 3 else "" for number in range(30)] for user in range(9)]
    rows = "".join(f"u{user},{','.join(row)}\n" for user, row in enumerate(marks))
    (tmp_path / "ratings.csv").write_text(f"user,{header}\n{rows}")
    with pytest.raises(DataError, match="a column for each item") as caught:
        draft(tmp_path)
    assert "unpivot" in caught.value.hint


def test_a_survey_with_a_question_for_each_item_is_explained(tmp_path: Path) -> None:
    header = ",".join(f"Q1_{number}" for number in range(1, 31))
    rows = "".join(f"r{row},{','.join(['1 - bad'] * 30)}\n" for row in range(9))
    (tmp_path / "answers.csv").write_text(f"ResponseId,{header}\n{rows}")
    with pytest.raises(DataError, match="the table seems to have a column for each item") as caught:
        draft(tmp_path, files={"interactions": tmp_path / "answers.csv"}, user_id="ResponseId")
    assert caught.value.why == "30 columns are called Q1_1, Q1_2, ..."
    assert "--item-id" in caught.value.hint


def test_columns_with_numbers_beside_ids_are_features() -> None:
    columns = {"user_id": ["a", "b"], "item_id": ["x", "y"], **{f"f{number}": [0.5, 1.5] for number in range(30)}}
    assert survey({"interactions": pl.DataFrame(columns)}).item_id == "item_id"


def test_rows_without_ids_and_repeated_ids_are_assumed_with_their_number(tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").write_text("user_id,item_id\n" + "".join(f"u{n % 5 or ''},i{n % 3}\n" for n in range(50)))
    (tmp_path / "items.csv").write_text("item_id,name\ni0,a\ni1,b\ni2,c\ni2,d\n")
    text = draft(tmp_path)
    assert 'missing_ids = "left out"' not in text  # an id u is one, too
    assert "repeated_ids = \"last\"  # 1 ids of the items are in several rows, such as 'i2'" in text
    (tmp_path / "interactions.csv").write_text("user_id,item_id\n" + "".join(f"{n % 5 or ''},i{n % 3}\n" for n in range(50)))
    assert 'missing_ids = "left out"  # 10 of 50 interactions have no user_id or no item_id' in draft(tmp_path)


def test_a_column_of_users_that_is_mostly_empty_is_a_warning(tmp_path: Path) -> None:
    rows = [(f"u{n % 20}" if n % 10 == 0 else "", f"c{n % 30}", f"i{n % 7}") for n in range(200)]
    (tmp_path / "interactions.csv").write_text("user_id,cookie,item_id\n" + "".join(f"{','.join(row)}\n" for row in rows))
    text = draft(tmp_path)
    assert "# warning: 90% of the interactions have no user_id: they are not read, and nothing is learned from them." in text
    assert "cookie is empty in 0%: --user-id (user_id=) cookie reads these rows" in text
    assert "# warning" not in draft(tmp_path, user_id="cookie")


def test_orders_and_their_items_in_two_files_are_to_be_joined(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text(
        "order_id,customer_id,day\n" + "".join(f"o{n},c{n % 5},2024-01-01\n" for n in range(20))
    )
    (tmp_path / "order_items.csv").write_text("order_id,product_id\n" + "".join(f"o{n % 20},p{n % 9}\n" for n in range(60)))
    with pytest.raises(DataError, match=r"several files may be the interactions: order_items\.csv, orders\.csv") as caught:
        draft(tmp_path)
    assert 'join(polars.read_csv("order_items.csv"), on="order_id")' in caught.value.hint
    files = {"interactions": tmp_path / "orders.csv", "items": tmp_path / "order_items.csv"}
    with pytest.raises(DataError, match=r"items, which seem to be in order_items\.csv, one row for each order_id") as caught:
        draft(tmp_path, files=files)
    assert 'on="order_id"' in caught.value.hint


def test_ids_are_not_lists(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": [["a"], ["b"]], "item_id": [1, 2]}).write_parquet(tmp_path / "interactions.parquet")
    with pytest.raises(DataError, match=r"column 'user_id': ids are of type List\(String\)") as caught:
        draft(tmp_path)
    assert "explode" in caught.value.hint


def test_a_table_is_drafted_although_no_interaction_has_an_id() -> None:
    items = pl.DataFrame({"item": [f"i{row}" for row in range(9)]})
    assert find_table_id(table(items), pl.Series("item", [None, None], dtype=pl.String), "item") == "item"


@pytest.mark.parametrize(
    ("own", "listed", "read"),
    [
        ("{}", "show:{}", "{}"),
        ("L {:06}", "{}", "{}"),
        ('="{:05}"', "{}", "{}"),
        ("{}", "{:,}", "{}"),
        ("A-{}", "B-{:07}", "{}"),
        ("A-{}", "A-{}", "A-{}"),  # the same
    ],
)
def test_ids_that_are_numbers_within_another_text_are_joined(own: str, listed: str, read: str) -> None:
    numbers = [1_234 + 977 * row for row in range(30)]
    frame = pl.DataFrame({"user": [f"u{row % 9}" for row in range(90)], "item": [own.format(n) for n in numbers * 3]})
    items = pl.DataFrame({"product": [listed.format(n) for n in numbers], "genre": ["a", "b"] * 15})
    found = survey({"interactions": frame, "items": items})
    expected = [read.format(n) for n in numbers]
    assert found.table_ids["items"] == "product"
    assert found.tables["items"].collect(["product"])["product"].to_list() == expected
    assert found.tables["interactions"].collect(["item"])["item"].unique(maintain_order=True).to_list() == expected


def test_the_rows_of_an_item_may_be_several_and_a_fee_has_no_number() -> None:
    rows = range(90)
    frame = pl.DataFrame({"user": [f"u{row % 9}" for row in rows], "article": [str(100 + 37 * (row % 30)) for row in rows]})
    frame = pl.concat([frame, pl.DataFrame({"user": ["u1"], "article": ["FEE"]})])
    items = pl.DataFrame({"article": [f"ART-{100 + 37 * (row // 2):05}" for row in range(60)], "pack": ["a", "b"] * 30})
    found = survey({"interactions": frame, "items": items})
    known = found.tables["items"].collect(["article"])["article"].implode()
    assert frame.filter(~pl.col("article").is_in(known))["article"].to_list() == ["FEE"]


def test_small_numbers_within_a_text_are_not_joined() -> None:
    frame = pl.DataFrame({"user": [f"u{row % 9}" for row in range(90)], "item": [f"a{row % 30}" for row in range(90)]})
    items = pl.DataFrame({"code": [f"b{row}" for row in range(30)], "genre": ["a", "b"] * 15})
    with pytest.raises(DataError, match="there is no column 'item'"):
        survey({"interactions": frame, "items": items})


def test_ids_in_capitals_and_small_letters_are_one() -> None:
    mails = [f"{name}{row}@shop.org" for row in range(9) for name in ("ida", "Ida", "IDA")]
    frame = pl.DataFrame({"email": mails * 4, "item": [f"x{row % 20}" for row in range(108)]})
    assert survey({"interactions": frame}).tables["interactions"].collect(["email"])["email"].n_unique() == 9
    codes = frame.with_columns(email=pl.Series([f"{'aB' if row % 2 else 'Ab'}{row // 2}" for row in range(108)]))
    assert survey({"interactions": codes}).tables["interactions"].collect(["email"])["email"].n_unique() == 108


def test_an_id_by_name_that_the_items_lack_gives_way_to_one_by_content() -> None:
    rows = range(200)
    frame = pl.DataFrame({"user": [f"u{row % 9}" for row in rows], "job_id": [9_000 + row % 50 for row in rows]})
    frame = frame.with_columns(ref=pl.Series([f"R{row % 50:04}" for row in rows]))
    items = pl.DataFrame({"ref": [f"R{row:04}" for row in range(50)], "isbn": [f"978-{row}" for row in range(50)]})
    found = survey({"interactions": frame, "items": items.with_columns(genre=pl.lit("a"))})
    assert (found.item_id, found.table_ids["items"]) == ("ref", "ref")


def test_ids_that_a_spreadsheet_rounded_are_refused() -> None:
    ids = [str(76_561_190_000_000_000 + row % 9) for row in range(90)]
    frame = pl.DataFrame({"player": ids, "game": [f"g{row % 20}" for row in range(90)]})
    players = pl.DataFrame({"player": ["7.65612E+16"] * 9, "level": range(9)})
    with pytest.raises(DataError, match="the ids have lost digits") as caught:
        survey({"interactions": frame, "users": players})
    assert "leave this table out" in str(caught.value.hint)


def test_order_lines_whose_customers_are_in_another_file_are_explained(tmp_path: Path) -> None:
    (tmp_path / "lines.csv").write_text("order_no,sku\n" + "".join(f"{row // 3},a{row % 20}\n" for row in range(90)))
    (tmp_path / "orders.csv").write_text("order_no;customer\n" + "".join(f"{row};c{row % 9}\n" for row in range(30)))
    with pytest.raises(DataError, match=r"orders\.csv has it in 'customer', one for each 'order_no'") as caught:
        draft(tmp_path, files={"interactions": tmp_path / "lines.csv"})
    assert "--user-id" in str(caught.value.hint)
    assert 'user_id = "order_no"' in draft(tmp_path, "order_no", files={"interactions": tmp_path / "lines.csv"})


def test_order_lines_in_memory_have_no_files_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "orders.csv").write_text("order_no;customer\n" + "".join(f"{row};c{row % 9}\n" for row in range(30)))
    monkeypatch.chdir(tmp_path)
    lines = pl.DataFrame({"order_no": [row // 3 for row in range(90)], "sku": [f"a{row % 20}" for row in range(90)]})
    assert survey({"interactions": lines}).user_id == "order_no"


def test_former_rows_of_an_item_are_no_rows_of_properties() -> None:
    frame = pl.DataFrame({"user_id": [f"u{n % 7}" for n in range(90)], "item_id": [f"i{n % 30}" for n in range(90)]})
    items = pl.DataFrame({"item_id": [f"i{n % 30}" for n in range(90)], "day": [n // 30 for n in range(90)]})
    named = items.with_columns(title="t" + pl.col("item_id"), genre="g" + pl.col("item_id").str.tail(1))
    assert "items" in survey({"interactions": frame, "items": named}, optional=["items"]).tables
    long = items.with_columns(key=pl.Series(["genre", "price", "size"] * 30), value="v" + pl.col("item_id").str.tail(1))
    long = long.with_columns(pl.col("item_id").sort(), value=pl.col("key") + pl.col("value"))
    found = survey({"interactions": frame, "items": long}, optional=["items"])
    assert "items" not in found.tables
    assert "a row for each value of 'key'" in found.warnings[0]
    with pytest.raises(DataError, match="a row for each value of 'key'"):
        survey({"interactions": frame, "items": long})


@pytest.mark.parametrize("mark", ["", "-1"])
def test_cells_that_list_ids_of_the_items_are_to_be_split(mark: str, tmp_path: Path) -> None:
    shown = [" ".join(f"N{100 + (n * k) % 30}{mark}" for k in (1, 3, 7)) for n in range(90)]
    (tmp_path / "behaviors.tsv").write_text("".join(f"{n}\tU{n % 20}\t{cell}\n" for n, cell in enumerate(shown)))
    (tmp_path / "news.tsv").write_text("".join(f"N{100 + n}\tsports\tTitle of {n}\n" for n in range(30)))
    with pytest.raises(DataError, match=r"a cell of 'column_3' lists several ids of news\.tsv, such as 'N100") as caught:
        draft(tmp_path)
    assert "one row for each user and item" in caught.value.hint
