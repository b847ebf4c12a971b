"""Which file of a folder is which table, by its name and by its ids."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import pytest

from recall.data.scaffold.draft import draft
from recall.data.scaffold.folder_files import files_in
from recall.errors import DataError

USERS = [f"u{n:03}" for n in range(40)]
ITEMS = [f"i{n:03}" for n in range(30)]
RANDOM = random.Random(1)
PAIRS = [(RANDOM.choice(USERS), RANDOM.choice(ITEMS)) for _ in range(300)]


def pairs(user: str, item: str) -> pl.DataFrame:
    return pl.DataFrame({user: [one for one, _ in PAIRS], item: [one for _, one in PAIRS], "n": range(1, 301)})


def once(id_: str, ids: Sequence[str]) -> pl.DataFrame:
    return pl.DataFrame({id_: ids, "kind": ["a", "b"] * (len(ids) // 2)})


def write(folder: Path, files: Mapping[str, pl.DataFrame]) -> None:
    for name, frame in files.items():
        if name.endswith(".json"):
            frame.write_ndjson(folder / name)
        else:
            frame.write_csv(folder / name)


FRIENDS = pl.DataFrame({"userID": [one for one, _ in PAIRS], "friendID": [USERS[n % 40] for n in range(300)]})


@pytest.mark.parametrize(
    ("files", "interactions", "users", "items", "unread"),
    [
        (  # a name of users and items; files of users that have no user in one row only
            {
                "artists.csv": once("id", ITEMS),
                "user_artists.csv": pairs("userID", "artistID"),
                "user_friends.csv": FRIENDS,
                "user_tags.csv": pairs("userID", "artistID"),
            },
            "user_artists.csv",
            None,
            "artists.csv",
            ("user_friends.csv", "user_tags.csv"),
        ),
        (  # the ids decide which file without a known word has the interactions
            {"Instruments_5.json": pairs("reviewerID", "asin"), "meta_Instruments.json": once("asin", ITEMS)},
            "Instruments_5.json",
            None,
            "meta_Instruments.json",
            (),
        ),
        (  # singulars; of two files named like interactions, one has users
            {
                "all_business.json": once("business_id", ITEMS),
                "all_checkin.json": once("business_id", ITEMS),
                "all_review.json": pairs("user_id", "business_id"),
                "all_tip.json": pairs("user_id", "business_id"),
                "all_user.json": once("user_id", USERS),
            },
            "all_review.json",
            "all_user.json",
            "all_business.json",
            ("all_checkin.json", "all_tip.json"),
        ),
        (  # unknown names: each id of the interactions is in one row
            {"plays.csv": pairs("member", "sku"), "a.csv": once("key", USERS), "b.csv": once("key", ITEMS)},
            "plays.csv",
            "a.csv",
            "b.csv",
            (),
        ),
        (  # unknown columns: their values are those of the other tables
            {"facts.csv": pairs("a", "b"), "users.csv": once("x", USERS), "items.csv": once("y", ITEMS)},
            "facts.csv",
            "users.csv",
            "items.csv",
            (),
        ),
        (
            {"orders.csv": pairs("user_id", "item_id"), "stores.csv": once("store", ["s1", "s2"])},
            "orders.csv",
            None,
            None,
            ("stores.csv",),
        ),
        (
            {"interactions.csv": pairs("user_id", "item_id"), "movies.csv": once("item_id", ITEMS)},
            "interactions.csv",
            None,
            None,
            ("movies.csv",),
        ),
    ],
)
def test_names_and_ids_decide_which_file_is_which_table(
    files: dict[str, pl.DataFrame],
    interactions: str,
    users: str | None,
    items: str | None,
    unread: tuple[str, ...],
    tmp_path: Path,
) -> None:
    write(tmp_path, files)
    found = files_in(tmp_path)
    expected = {"interactions": interactions, "users": users, "items": items}
    assert {table: path.name for table, path in found.paths.items()} == {k: v for k, v in expected.items() if v is not None}
    assert found.unread == unread


def test_small_integers_are_ids_of_another_file_only_under_one_name(tmp_path: Path) -> None:
    plays = pl.DataFrame({"user": [n % 20 for n in range(99)], "item": [n * 7 % 30 for n in range(99)]})
    write(tmp_path, {"plays.csv": plays, "a.csv": once("row", [str(n) for n in range(30)])})
    assert set(files_in(tmp_path).paths) == {"interactions"}
    write(tmp_path, {"a.csv": once("item", [str(n) for n in range(30)])})
    assert files_in(tmp_path).paths["items"].name == "a.csv"


def test_reasons_and_files_that_are_not_read_are_in_the_draft(tmp_path: Path) -> None:
    write(tmp_path, {"x_5.csv": pairs("reviewerID", "asin"), "y.csv": once("asin", ITEMS), "z.csv": once("w", ["x", "y"])})
    (tmp_path / "README").write_text("x")
    text = draft(tmp_path)
    assert (
        "# x_5.csv is assumed to be the interactions: its rows have the id of a user (reviewerID) and of an item (asin)" in text
    )
    assert "# y.csv is assumed to be the items: its asin has the values of asin of the interactions, each once" in text
    assert "# files of the folder that are not read: z.csv\n" in text


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.csv": pairs("user", "item"), "b.csv": pairs("user", "item")}, "may be the interactions: a.csv, b.csv"),
        (
            {"plays.csv": pairs("user", "item"), "a.csv": once("item", ITEMS), "b.csv": once("item", ITEMS)},
            "may be the items: a.csv, b.csv",
        ),
    ],
)
def test_files_that_are_equally_good_are_refused(files: dict[str, pl.DataFrame], message: str, tmp_path: Path) -> None:
    write(tmp_path, files)
    with pytest.raises(DataError, match=message):
        files_in(tmp_path)
