import json
from pathlib import Path

import polars as pl
import pytest

from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.serving.rerank.rules import Quota


def test_lists_of_all_users_are_those_of_queries(run, published: Path, recommender: Recommender, tmp_path: Path) -> None:
    out = tmp_path / "lists.parquet"
    ended = run("recommend", published, "--out", out, "-n", 2, "--filter", '{"category": {"in": ["c0", "c1"]}}', "--json")
    assert ended.code == 0
    assert (ended.json["users"], ended.json["unknown_users"]) == (12, 0)
    assert ended.json["users_per_second"] > 0
    written = pl.read_parquet(out)
    for (user,), rows in written.group_by("user_id"):
        answer = recommender.recommend(Request(user_id=user, n=2, filter={"category": {"in": ["c0", "c1"]}}))
        assert rows["item_id"].to_list() == list(answer.ids)
    assert written["user_id"].n_unique() == 12


def test_users_of_a_file_and_rules_of_a_request(run, published: Path, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("user_id,device\nu1,tv\nstranger,\n")
    request = {"n": 4, "rules": [{"kind": "quota", "column": "category", "most": 1}], "exclude_seen": False}
    (tmp_path / "request.json").write_text(json.dumps(request))
    out = tmp_path / "lists.csv"
    ended = run(
        *("recommend", published, "--users", tmp_path / "users.csv", "--out", out),
        *("--request", tmp_path / "request.json"),
    )
    assert ended.code == 0
    assert "unknown  1 users" in ended.out
    assert "users a second" in ended.out
    categories = {f"i{number}": f"c{number % 4}" for number in range(15)}
    written = pl.read_csv(out)
    for (user,), rows in written.group_by("user_id"):
        shown = [categories.get(item) for item in rows["item_id"]]
        assert len(set(shown)) == len(shown), user


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "lists.xlsx"), "neither .parquet nor .csv"),
        (("--out", "l.parquet", "--users", "none.csv"), "no such file"),
        (("--out", "l.parquet", "--filter", "x"), "this is not JSON"),
    ],
)
def test_wrong_arguments_are_refused(run, published: Path, arguments: tuple[str, ...], message: str) -> None:
    ended = run("recommend", published, *arguments)
    assert ended.code == 65
    assert message in ended.err


def test_lists_of_a_scenario(run, root: Path, recommender: Recommender, tmp_path: Path) -> None:
    rules = '[{ kind = "quota", column = "category", most = 1 }]'
    (root / "scenarios.toml").write_text(f'[home]\nn = 3\nrules = {rules}\nfields = ["price"]\nbecause = 2\n')
    ended = run("recommend", root, "--scenario", "home", "--out", tmp_path / "lists.parquet")
    assert ended.code == 0, ended.err
    answer = recommender.recommend(Request("u1", n=3, rules=[Quota("category", 1)]))
    written = pl.read_parquet(tmp_path / "lists.parquet").filter(pl.col("user_id") == "u1")
    assert written["item_id"].to_list() == list(answer.ids)
    ended = run("recommend", root, "--scenario", "hom", "--out", tmp_path / "others.parquet")
    assert (ended.code, "Did you mean 'home'" in ended.err) == (65, True)


def test_the_user_column_must_be_there(run, published: Path, tmp_path: Path) -> None:
    (tmp_path / "users.csv").write_text("who\nu1\n")
    ended = run("recommend", published, "--out", tmp_path / "l.parquet", "--users", tmp_path / "users.csv")
    assert (ended.code, "there is no column 'user_id'" in ended.err) == (65, True)
