import gc
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import recall
from recall import ConfigError, DataError, Model
from recall.api import fit as module
from recall.cli import main
from recall.config import parse_config
from tests.api.conftest import CONFIG, ITEMS, interactions, items

SET = ["--set", "model.k=2", "--set", "train.objective=square", "--set", "train.sweeps=4"]


class ArrowOnly:
    """A table of a library that polars knows only by its Arrow stream."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._frame.__arrow_c_stream__(requested_schema)


def vectors(model: Model) -> Any:
    return np.asarray(model.recommender.bundle.item_vectors)


def test_frames_paths_and_the_command_line_give_the_same_bits(model: Model, taken: pl.DataFrame, tmp_path: Path) -> None:
    taken.write_parquet(tmp_path / "interactions.parquet")
    items().write_parquet(tmp_path / "items.parquet")
    paths = recall.fit(tmp_path / "interactions.parquet", items=str(tmp_path / "items.parquet"), config=CONFIG, progress=False)
    streams = recall.fit(ArrowOnly(taken), items=ArrowOnly(items()), config=CONFIG, progress=False)
    for command in (
        ["init", str(tmp_path)],
        ["train", str(tmp_path / "recall.toml"), "--out", str(tmp_path / "bundles"), *SET],
    ):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert not ended.value.code
    for other in (paths, streams, recall.load(tmp_path / "bundles")):
        assert (vectors(other) == vectors(model)).all()
        assert other.recommend(3).equals(model.recommend(3))


def test_ids_in_lists_have_the_type_of_the_elements(taken: pl.DataFrame) -> None:
    orders = taken.group_by("user_id", maintain_order=True).agg("item_id")
    answer = recall.fit(orders, config=CONFIG, progress=False).recommend(3)
    assert answer.schema["item_id"] == taken.schema["item_id"]
    assert set(answer["item_id"]) <= set(taken["item_id"])


def test_pandas_in_pandas_out(model: Model, taken: pl.DataFrame) -> None:
    import pandas

    frame = pandas.DataFrame({column.name: column.to_numpy() for column in taken})
    named = pandas.DataFrame({"title": items()["title"].to_list()}, index=pandas.Index(range(ITEMS), name="item_id"))
    fitted = recall.fit(frame, items=named, config=CONFIG, progress=False)
    answer = fitted.recommend(pandas.Series([3, 4]), n=2)
    assert isinstance(answer, pandas.DataFrame)
    assert answer.to_dict("list") == model.recommend([3, 4], n=2).to_dict(as_series=False)
    assert (answer["user_id"].dtype, answer["item_id"].dtype) == (np.int64, np.int64)
    assert isinstance(fitted.explain(3, 1), pandas.DataFrame)


def test_a_config_may_change_the_draft_or_be_whole(model: Model, taken: pl.DataFrame, tmp_path: Path) -> None:
    assert (model.config.model.k, model.config.train.sweeps, model.config.data.attributes) == (2, 4, ("title",))
    assert 'split = { by = "random" }  # without a time' in model.draft
    values = model.config.model_dump(mode="json", by_alias=True)
    for config in (parse_config(values), values):
        whole = recall.fit(taken, items=items(), config=config, progress=False)
        assert (vectors(whole) == vectors(model)).all()
        assert whole.draft == ""
    with pytest.raises(ConfigError, match=r"model.kk: this key is not known"):
        recall.fit(taken, config={"model": {"kk": 8}})
    with pytest.raises(ConfigError, match="no such configuration file"):
        recall.fit(taken, config=tmp_path / "none.toml")


def test_ids_may_have_other_names_and_types(taken: pl.DataFrame) -> None:
    words = taken.select(
        pl.format("u{}", "user_id").cast(pl.Categorical).alias("who"), pl.format("{}x", "item_id").alias("what")
    )
    fitted = recall.fit(words, config=CONFIG, user_id="who", item_id="what", progress=False)
    answer = fitted.recommend(n=1)
    assert answer.columns == ["who", "rank", "what", "score"]
    assert (answer["who"].dtype, answer["what"].dtype) == (words["who"].dtype, pl.String)
    assert sorted(answer["who"]) == sorted(words["who"].unique())


def test_what_is_not_a_table_is_refused(taken: pl.DataFrame) -> None:
    with pytest.raises(DataError, match="a table is given as a list") as caught:
        recall.fit([(1, 2)])
    assert caught.value.where == "interactions"
    with pytest.raises(DataError, match="there is no column 'user_id'"):
        recall.fit(taken.rename({"user_id": "whose"}))
    with pytest.raises(DataError, match="no such file"):
        recall.fit("nowhere.parquet")


def test_progress_goes_to_stderr_or_nowhere(taken: pl.DataFrame, capfd: pytest.CaptureFixture[str]) -> None:
    config = {**CONFIG, "train": {"objective": "square", "sweeps": 1}}
    recall.fit(taken, config=config)
    out, err = capfd.readouterr()
    assert (out, err.count("sweep  1/1")) == ("", 1)
    recall.fit(taken, config=config, progress=False)
    assert capfd.readouterr() == ("", "")


def test_files_are_temporary(taken: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path))
    fitted = recall.fit(taken, config={**CONFIG, "train": {"objective": "square", "sweeps": 1}}, progress=False)
    assert len(list(tmp_path.iterdir())) == 1
    del fitted
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="there are no interactions"):
        recall.fit(interactions().clear(), config=parse_config(_whole()))
    assert list(tmp_path.iterdir()) == []


def _whole() -> dict[str, Any]:
    return {"fields": {"user_id": {"side": "user", "kind": "categorical"}, "item_id": {"side": "item", "kind": "categorical"}}}


@pytest.mark.slow
def test_a_draft_races_objectives_for_the_configured_time(taken: pl.DataFrame) -> None:
    fitted = recall.fit(taken, config={"train": {"race": 5}}, progress=False)
    assert 'objective = "auto"' in fitted.draft
    assert fitted.config.train.objective != "auto"
    assert set(fitted.recommend(7)["item_id"]) <= set(range(ITEMS))
    assert fitted.evaluate().requests > 0
