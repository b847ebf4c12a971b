from pathlib import Path

import polars as pl
import pytest

from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.features.encoder import FeatureEncoder
from recall.publish.export import export
from recall.serving.recommender import Recommender, Request
from tests.conftest import TINY, random_model, write_tiny_tables

LOG_LOSS = {"objective": "logistic"}
PAIRS = "item_id,row,user_id,device,age\ni1,first,u1,web,\ni2,second,u1,web,\ni1,third,nobody,tv,33\ni1,fourth,,,\n"


@pytest.fixture(scope="module")
def probable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a bundle marked as trained with log loss."""
    folder = tmp_path_factory.mktemp("probable")
    write_tiny_tables(folder)
    config = parse_config({**TINY, "train": LOG_LOSS})
    dataset = load_dataset(config, folder)
    encoder = FeatureEncoder.fit(dataset)
    export(random_model(encoder), encoder, dataset, config, folder / "bundles")
    return folder / "bundles"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_predict_keeps_the_order_of_rows(run, probable: Path, tmp_path: Path, suffix: str) -> None:
    asked, out = tmp_path / f"pairs{suffix}", tmp_path / "out" / f"ranked{suffix}"
    frame = pl.read_csv(PAIRS.encode())
    (frame.write_csv if suffix == ".csv" else frame.write_parquet)(asked)
    ended = run("predict", probable, "--pairs", asked, "--out", out)
    assert ended.code == 0, ended.err
    assert "no field reads 'row'" in ended.err
    found = pl.read_csv(out) if suffix == ".csv" else pl.read_parquet(out)
    assert found.drop("score", "probability").equals(frame)
    recommender = Recommender.load(probable)
    web = Request("u1", context={"device": "web"})
    stranger = Request("nobody", features={"age": 33}, context={"device": "tv"})
    expected = recommender.predict([(web, "i1"), (web, "i2"), (stranger, "i1"), (Request(), "i1")])
    recommender.close()
    assert found["score"].to_list() == pytest.approx([one.score for one in expected])
    assert found["probability"].to_list() == pytest.approx([one.probability for one in expected])


def test_scores_of_other_losses_are_not_probabilities(run, published: Path, tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text(PAIRS)
    asked = ("predict", published, "--pairs", tmp_path / "pairs.csv", "--out", tmp_path / "out.csv")
    ended = run(*asked)
    assert ended.code == 65
    assert 'Train with train.objective = "logistic", or ask for --scores' in ended.err
    assert not (tmp_path / "out.csv").exists()
    assert run(*asked, "--scores").code == 0
    assert pl.read_csv(tmp_path / "out.csv").columns == ["item_id", "row", "user_id", "device", "age", "score"]


@pytest.mark.parametrize(
    ("pairs", "out", "message"),
    [
        ("user_id,item\nu1,i1\n", "out.csv", "no column 'item_id'"),
        ("user,item_id\nu1,i1\n", "out.csv", "no column 'user_id'"),
        ("user_id,item_id\nu1,\n", "out.csv", "1 of 1 rows have no id, first in row 1"),
        ('user_id,item_id\nu1,i1\n"",i1\n', "out.csv", "1 of 2 rows have no id, first in row 2"),
        ("user_id,item_id\nu1,i1\n,i1\n  ,i1\n\t,i2\n", "out.csv", "2 of 4 rows have no id, rows 3, 4"),
        ("user_id,item_id\nu1,i1\nu1, \n", "out.csv", "1 of 2 rows have no id, first in row 2"),
        ("user_id,item_id\nu1,nothing\n", "out.csv", "not in the catalogue: 'nothing'"),
        ("user_id,item_id,age\nu1,i1,old\n", "out.csv", "not a number"),
        ("user_id,item_id,score\nu1,i1,1\n", "out.csv", "a column 'score' already"),
        ("user_id,item_id\nu1,i1\n", "out.txt", "neither .parquet nor .csv"),
    ],
)
def test_invalid_rows_are_named(run, probable: Path, tmp_path: Path, pairs: str, out: str, message: str) -> None:
    (tmp_path / "pairs.csv").write_text(pairs)
    ended = run("predict", probable, "--pairs", tmp_path / "pairs.csv", "--out", tmp_path / out)
    assert ended.code == 65
    assert message in ended.err
    assert not (tmp_path / out).exists()


def test_an_empty_user_is_refused_and_a_missing_one_counted(run, probable: Path, tmp_path: Path) -> None:
    for users, code, said in ((["u1", ""], 65, "first in row 2"), (["u1", None], 0, "1 pairs without a user")):
        pl.DataFrame({"user_id": users, "item_id": ["i1", "i1"]}).write_parquet(tmp_path / "pairs.parquet")
        ended = run("predict", probable, "--pairs", tmp_path / "pairs.parquet", "--out", tmp_path / "out.csv")
        assert ended.code == code
        assert said in ended.err + ended.out
