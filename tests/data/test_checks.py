from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recall.config import RunConfig, parse_config
from recall.data.checks import check
from recall.data.findings import Finding

FIELDS = {
    "user_id": {"side": "user", "kind": "categorical"},
    "item_id": {"side": "item", "kind": "categorical"},
}


def config(fields: dict[str, Any] | None = None, **data: Any) -> RunConfig:
    return parse_config({"data": {"interactions": "e.csv", **data}, "fields": {**FIELDS, **(fields or {})}})


def write(folder: Path, **tables: str) -> Path:
    for name, text in tables.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


def one(findings: list[Finding], text: str) -> Finding:
    (finding,) = (finding for finding in findings if text in finding.message)
    return finding


def test_valid_tables_give_no_findings(tmp_path: Path) -> None:
    write(tmp_path, e="user_id,item_id\na,x\nb,y\n", i="item_id,kind\nx,k\ny,l\n")
    assert check(config({"kind": {"side": "item", "kind": "categorical"}}, items="i.csv"), tmp_path) == []


def test_each_check_is_announced(tmp_path: Path) -> None:
    said: list[str] = []
    check(config(), write(tmp_path, e="user_id,item_id\na,x\nb,y\n"), said.append)
    assert said[0] == "loading and encoding (1 of 7)"
    assert said[-1] == "contexts (7 of 7)"


def test_times_of_no_interactions_are_no_finding(tmp_path: Path) -> None:
    found = check(config(time="at"), write(tmp_path, e="user_id,item_id,at\n"))
    assert [finding.level for finding in found if "no interactions" in finding.message] == ["error"]


def test_a_column_of_a_format_that_is_not_there_is_reported(tmp_path: Path) -> None:
    write(tmp_path, e="user_id,item_id,price\na,x,1\nb,y,2\n")
    found = check(config(formats={"interactions": {"numbers": {"prise": ",", "price": "."}}}), tmp_path)
    assert one(found, "names this column, which the table lacks").column == "prise"


def test_the_small_data_set_has_no_findings(tiny_folder: Path, tiny_config: RunConfig) -> None:
    findings = check(tiny_config, tiny_folder)
    assert not [finding for finding in findings if finding.level == "error"]
    assert one(findings, "nothing reads this column").column == "unused"
    assert one(findings, "not in the users table").count == 1
    assert {finding.column for finding in findings if "share the row for missing" in finding.message} == {
        *("gender", "age", "category", "tags", "price")
    }


def test_a_column_named_like_an_outcome_is_noticed_where_none_is_set(tmp_path: Path) -> None:
    write(tmp_path, e="user_id,item_id,clicked,stars\na,x,1,4\nb,y,1,2\n")
    assert one(check(config(label="clicked"), tmp_path), "nothing reads this column").level == "note"
    found = check(config(), tmp_path)
    assert {finding.column for finding in found if "denotes the outcome" in finding.message} == {"clicked", "stars"}


def test_attribute_columns_are_available_to_requests(tiny_folder: Path, tiny_config: RunConfig) -> None:
    data = tiny_config.data.model_copy(update={"attributes": ("unused",)})
    findings = check(tiny_config.model_copy(update={"data": data}), tiny_folder)
    assert not [finding for finding in findings if "nothing reads" in finding.message]


@pytest.mark.parametrize(
    ("tables", "data", "message"),
    [
        ({}, {}, "no such file"),
        ({"e": "user_id,item_id\n"}, {}, "no interactions"),
        ({"e": "user_id,item_id\n,x\n"}, {}, "have no id"),
        ({"e": "user_id,item_id\na,x\n", "u": "user_id\na\na\n"}, {"users": "u.csv"}, "more than one row"),
        ({"e": "user_id,item_id,t\na,x,yesterday\n"}, {"time": "t"}, "ISO 8601"),
        ({"e": "user,item_id\na,x\n"}, {}, "Did you mean 'user'"),
    ],
)
def test_a_fatal_problem_is_one_error_and_listed_first(
    tmp_path: Path, tables: dict[str, str], data: dict[str, Any], message: str
) -> None:
    findings = check(config(**data), write(tmp_path, **tables))
    assert findings[0].level == "error"
    assert message in findings[0].message
    assert len([finding for finding in findings if finding.level == "error"]) == 1


def test_several_problems_are_reported_together(tmp_path: Path) -> None:
    write(tmp_path, e="user_id,item_id,hour\na,x,noon\n,y,2\n")
    findings = check(config({"hour": {"side": "user", "kind": "numeric"}}), tmp_path)
    assert one(findings, "not a number: 'noon'").level == one(findings, "have no id").level == "error"


def test_users_and_items_without_training_rows_are_counted(tmp_path: Path) -> None:
    write(tmp_path, e="user_id,item_id,split\na,x,train\na,new,test\nb,x,test\nb,x,valid\n")
    findings = check(config(split={"by": "column"}), tmp_path)
    assert one(findings, "1 of 2 test interactions are with users that never train").level == "warning"
    assert one(findings, "1 of 2 test interactions are with items that never train").column == "item_id"
    assert one(findings, "1 of 1 validation interactions").count == 1


def test_training_on_the_future_is_reported(tmp_path: Path) -> None:
    rows = "user_id,item_id,t,split\na,x,5,train\na,y,3,test\nb,x,9,train\nb,z,10,test\n"
    findings = check(config(time="t", split={"by": "column"}), write(tmp_path, e=rows))
    assert one(findings, "of the same user: the future is trained on").count == 1
    assert one(findings, "not forecasting").count == 2
    sound = "user_id,item_id,t,split\na,x,1,train\na,y,3,test\nb,x,2,train\nb,y,3,test\n"
    findings = check(config(time="t", split={"by": "column"}), write(tmp_path, e=sound))
    assert not [finding for finding in findings if finding.column == "t"]
    findings = check(config(time="t", split={"by": "last", "valid": 0}), write(tmp_path, e=sound))
    assert one(findings, "not forecasting").level == "note"
    findings = check(config(time="t", split={"by": "last", "test": 0, "valid": 1}), write(tmp_path, e=sound))
    assert not [finding for finding in findings if "forecasting" in finding.message]


def test_duplicate_and_tied_rows_are_counted(tmp_path: Path) -> None:
    write(tmp_path, e="user_id,item_id,t\na,x,1\na,x,1\na,y,1\nb,x,1\n")
    timed = check(config(time="t"), tmp_path)
    assert (one(timed, "repeat the user, item and time").level, one(timed, "repeat the").count) == ("warning", 1)
    assert one(timed, "share their time").count == 2
    assert one(check(config(), tmp_path), "repeat the user and item").level == "note"


def test_near_misses_between_ids_and_tables_are_shown(tmp_path: Path) -> None:
    write(tmp_path, e="user_id,item_id\na,007\nb,8\n", i="item_id\n7\n8\n9\n")
    findings = check(config(items="i.csv"), tmp_path)
    assert one(findings, "1 of 2 ids are not in the items table, such as '007'").level == "warning"
    assert one(findings, "leading zeros, blanks or case only: '007'").count == 1


def test_a_user_with_most_interactions_may_stand_for_unknown_ones(tmp_path: Path) -> None:
    rows = "".join(f"u{n},i{n % 7}\n" for n in range(30))
    many = write(tmp_path, e=f"user_id,item_id\n{rows}" + "".join(f"0,i{n % 7}\n" for n in range(40)))
    found = one(check(config(), many), "are of one user")
    assert (found.level, found.count) == ("warning", 40)
    assert "40 of 70 interactions are of one user, '0'" in found.message
    heavy = write(tmp_path, e=f"user_id,item_id\n{rows}" + "".join(f"0,i{n % 7}\n" for n in range(5)))
    assert "5 of 35 interactions" in one(check(config(), heavy), "are of one user").message
    few = write(tmp_path, e=f"user_id,item_id\n{rows}{rows}" + "".join(f"0,i{n % 7}\n" for n in range(8)))
    assert not [each for each in check(config(), few) if "are of one user" in each.message]


def test_ids_that_lost_digits_as_floats_are_reported(tmp_path: Path) -> None:
    write(tmp_path, e="user_id,item_id\n1.152921504606847e+18,1e5\n1.15292E+18,17.0\n")
    (finding,) = (one for one in check(config(), tmp_path) if "all their digits" in one.message)
    assert (finding.level, finding.column, finding.count) == ("warning", "user_id", 2)
    assert finding.message.startswith("2 of 2 rows hold ids as floats, such as '1.152921504606847e+18', '1.15292E+18'")
    pl.DataFrame({"user_id": [2.0**60, 17.0], "item_id": [1, 2**60]}).write_parquet(tmp_path / "e.parquet")
    found = check(config(interactions="e.parquet"), tmp_path)
    assert (one(found, "all their digits").column, one(found, "all their digits").count) == ("user_id", 1)


def test_a_field_that_reads_the_outcome_is_reported(tmp_path: Path) -> None:
    write(tmp_path, e="user_id,item_id,stars\na,x,5\nb,y,3\n")
    findings = check(config({"stars": {"side": "user", "kind": "numeric"}}, weight="stars"), tmp_path)
    assert one(findings, "known only after the interaction").column == "stars"


def test_negatives_are_not_checked_for_duplicates_or_leakage(tmp_path: Path) -> None:
    rows = "a,x,1,train,1\na,x,1,train,0\na,x,1,train,0\na,y,2,test,1\na,z,3,train,0\n"
    write(tmp_path, e="user_id,item_id,t,split,y\n" + rows)
    data = {"time": "t", "split": {"by": "column"}, "label": "y"}
    findings = check(config(**data), tmp_path)
    assert not [finding for finding in findings if "repeat" in finding.message or "later" in finding.message]
    assert not [finding for finding in findings if finding.column == "y"]
    reads = check(config({"y": {"side": "user", "kind": "categorical"}}, **data), tmp_path)
    assert one(reads, "known only after the interaction").column == "y"


def test_an_unused_outcome_column_is_named(tmp_path: Path) -> None:
    write(tmp_path, e="user_id,item_id,rating,note\na,x,5,n\nb,y,1,n\n", i="item_id,rating\nx,4.5\ny,3\n")
    findings = check(config(items="i.csv"), tmp_path)
    assert one(findings, "every row counts alike").column == "rating"
    assert one(findings, "every row counts alike").level == "warning"
    unread = [(finding.table, finding.column) for finding in findings if finding.message == "nothing reads this column"]
    assert unread == [("interactions", "note"), ("items", "rating")]
    used = check(config(items="i.csv", outcome={"column": "rating", "at_least": 4}), tmp_path)
    assert not [finding for finding in used if "every row counts alike" in finding.message]


def test_integers_with_a_decimal_point_are_normalised_and_reported(tmp_path: Path) -> None:
    write(tmp_path, e="user_id,item_id,hour\n1.0,7.0,2.0\n2.0,8.0,2\n2.0,7.0,3.0\n", i="item_id,kind\n7,a\n8,b\n")
    fields = {"hour": {"side": "user", "kind": "categorical"}, "kind": {"side": "item", "kind": "categorical"}}
    findings = check(config(fields, items="i.csv"), tmp_path)
    assert one(findings, "'2.0' is '2'").column == "hour"
    assert one(findings, "'7.0' is '7'").column == "item_id"
    assert not any("not in the items table" in finding.message or "several ways" in finding.message for finding in findings)
