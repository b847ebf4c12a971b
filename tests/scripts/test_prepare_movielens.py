import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from recall.config import load_config
from recall.data.dataset import load_dataset
from recall.errors import DataError
from scripts.prepare_movielens import Films, find_layout, prepare, read_movielens

ROOT = Path(__file__).parents[2]


def write(folder: Path, encoding: str = "utf-8", **files: str) -> Path:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding=encoding)
    return folder


@pytest.fixture
def ml_100k(tmp_path: Path) -> Path:
    return write(
        tmp_path,
        "latin-1",
        u__genre="unknown|0\nAction|1\nDrama|2\n\n",
        u__data="1\t2\t3\t881250949\n2\t1\t5\t881250950\n",
        u__item=("1|Misérables, Les (1995)|01-Jan-1995||http://x|0|1|1\n2|unknown||||1|0|0\n3|No Year|04-Feb-1971|||0|0|1\n"),
        u__user="1|24|M|technician|05711\n2|53|F|other|T8H1N\n",
    )


@pytest.fixture
def ml_1m(tmp_path: Path) -> Path:
    return write(
        tmp_path,
        "latin-1",
        ratings__dat="1::1::5::978300760\r\n1::2::3::978302109\r\n2::1::4::978301968\r\n",
        movies__dat="1::Toy Story (1995)::Animation|Children's\r\n2::Cité: des (enfants) perdus, La (1995)::Sci-Fi\r\n",
        users__dat="1::F::1::10::48067\r\n2::M::56::16::07072-1234\r\n",
    )


@pytest.fixture
def ml_latest(tmp_path: Path) -> Path:
    return write(
        tmp_path,
        ratings__csv="userId,movieId,rating,timestamp\n1,1,4.5,964982703\n1,007,0.5,964981247\n",
        movies__csv=(
            'movieId,title,genres\n1,"American President, The (1995)",Comedy|Drama\n007,日本 (2006–2007),(no genres listed)\n'
        ),
    )


def test_100k(ml_100k: Path) -> None:
    films = read_movielens(ml_100k)
    assert films.interactions.rows() == [("1", "2", 3.0, 881250949), ("2", "1", 5.0, 881250950)]
    assert films.users is not None
    assert films.users.rows() == [("1", "M", 24, "technician", "05711"), ("2", "F", 53, "other", "T8H1N")]
    assert films.items.rows() == [
        ("1", "Misérables, Les", 1995, ["Action", "Drama"]),
        ("2", "unknown", None, []),
        ("3", "No Year", 1971, ["Drama"]),
    ]


def test_1m(ml_1m: Path) -> None:
    films = read_movielens(ml_1m)
    assert films.interactions["timestamp"].to_list() == [978300760, 978302109, 978301968]
    assert films.users is not None
    assert films.users["zip"].to_list() == ["48067", "07072-1234"]
    assert films.users["age"].to_list() == [1, 56]
    assert films.items.rows() == [
        ("1", "Toy Story", 1995, ["Animation", "Children's"]),
        ("2", "Cité: des (enfants) perdus, La", 1995, ["Sci-Fi"]),
    ]


def test_10m_is_1m_without_users(ml_1m: Path) -> None:
    (ml_1m / "users.dat").unlink()
    (ml_1m / "movies.dat").write_text("1::Amélie (2001)::Comedy\n", encoding="utf-8")
    films = read_movielens(ml_1m)
    assert films.users is None
    assert films.items["title"].to_list() == ["Amélie"]


def test_latest(ml_latest: Path) -> None:
    films = read_movielens(ml_latest)
    assert films.users is None
    assert films.interactions["item_id"].to_list() == ["1", "007"]
    assert films.interactions["rating"].to_list() == [4.5, 0.5]
    assert films.items.rows() == [("1", "American President, The", 1995, ["Comedy", "Drama"]), ("007", "日本", 2006, [])]


@pytest.mark.parametrize("layout", ["ml_100k", "ml_1m", "ml_latest"])
def test_the_command_writes_loadable_tables_and_a_configuration(
    layout: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source, out = request.getfixturevalue(layout), tmp_path / "out"
    films = read_movielens(source)
    # all interactions of these files are the last of their user, so the drafted split leaves none: train on all
    command = [sys.executable, "scripts/prepare_movielens.py", str(source), str(out)]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["interactions"] == len(films.interactions)
    config = load_config(out / "recall.toml", ["data.split={by='none'}"])
    dataset = load_dataset(config, out)
    assert len(dataset.events) == len(films.interactions)
    assert dataset.items["item_id"].to_list() == films.items["item_id"].to_list()
    assert set(dataset.user_columns) == (set() if films.users is None else {"gender", "age", "occupation"})
    assert pl.read_parquet(out / "items.parquet").equals(films.items)


def test_an_edited_configuration_is_kept_and_low_ratings_can_be_dropped(ml_latest: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "recall.toml").write_text("# mine\n")
    command = [sys.executable, "scripts/prepare_movielens.py", str(ml_latest), str(out), "--min-rating", "4"]
    subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=True)
    assert (out / "recall.toml").read_text() == "# mine\n"
    assert pl.read_parquet(out / "interactions.parquet")["rating"].to_list() == [4.5]


def test_written_rows_are_counted(ml_1m: Path, tmp_path: Path) -> None:
    assert find_layout(ml_1m) is not None
    assert find_layout(tmp_path / "nowhere") is None
    assert prepare(ml_1m, tmp_path / "out", min_rating=4) == {"interactions": 2, "users": 2, "items": 2}


def test_a_folder_without_movielens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no u\.data, ratings\.dat or ratings\.csv here"):
        read_movielens(tmp_path)
    command = [sys.executable, "scripts/prepare_movielens.py", str(tmp_path), str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 65
    assert "Give the folder of the unpacked archive" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("movies", "1::Toy Story (1995)\n", r"movies\.dat: 1 lines do not have 3 columns, such as '1::Toy Story"),
        ("movies", None, r"movies\.dat: the file cannot be read"),
        ("ratings", "1::1::five::3\n", r"ratings\.dat: a column does not hold numbers"),
    ],
)
def test_broken_files_are_refused_by_name(ml_1m: Path, name: str, text: str | None, message: str) -> None:
    path = ml_1m / f"{name}.dat"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_movielens(ml_1m)


def test_real_100k(real_data: Path) -> None:
    films: Films = read_movielens(real_data / "ml-100k")
    assert films.users is not None
    assert [len(table) for table in (films.interactions, films.users, films.items)] == [100_000, 943, 1_682]
    assert films.items.filter(pl.col("item_id") == "1").rows() == [
        ("1", "Toy Story", 1995, ["Animation", "Children's", "Comedy"])
    ]
    assert films.items["title"].str.contains("�").sum() == 0
    assert films.items["year"].null_count() == 1
