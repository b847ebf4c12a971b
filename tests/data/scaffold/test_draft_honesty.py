"""Metrics of a drafted configuration are honest: other columns of held-out rows than ids and context have no effect."""

from itertools import chain
from pathlib import Path

import polars as pl
import pytest

from recall.config import load_config
from tests.data.scaffold.shapes import SHAPES, write

QUICK = ("--set", "model.k=8", "--set", "train={objective='square', sweeps=2}")
LITTLE = ("--set", "evaluation.intervals=0", "--set", "evaluation.dial=[]", "--set", "evaluation.sample=20", "--json")


def figures(run, folder: Path, ids: tuple[str, str]) -> tuple[float, float, tuple[str, ...]]:
    """Compute recall@10 on the held-out rows, unchanged and without all columns that requests lack."""
    drafted = run("init", folder, "--user-id", ids[0], "--item-id", ids[1])
    assert drafted.code == 0, drafted.err
    path = folder / "recall.toml"
    held = ("--set", 'data.split={by="last"}') if load_config(path).data.time else ("--set", 'data.split={by="random"}')
    if load_config(path).data.split.by == "column":
        held = ()
    trained = run("train", path, "--out", folder / "out", *QUICK, *held)
    assert trained.code == 0, trained.err
    data = load_config(path).data
    frame = pl.read_csv(folder / "interactions.csv", infer_schema=False)
    flags = data.formats["interactions"].flags.values() if "interactions" in data.formats else ()
    kept = {*ids, data.time, "split", *data.outcome_columns, *chain.from_iterable(flags)}
    others = [name for name in frame.columns if name not in kept]
    last = pl.int_range(pl.len()).over(ids[0]) == pl.len().over(ids[0]) - 1
    ordered = frame.sort(data.time, maintain_order=True) if data.time else frame
    ordered.with_columns(pl.when(last).then(None).otherwise(name).alias(name) for name in others).write_csv(
        folder / "reduced.csv"
    )
    ended = [
        run("evaluate", path, folder / "out", "--set", f"data.interactions={name}", *held, *LITTLE)
        for name in ("interactions.csv", "reduced.csv")
    ]
    assert [one.code for one in ended] == [0, 0], ended[1].err
    values = [one.json["model"]["metrics"]["recall@10"]["value"] for one in ended]
    return values[0], values[1], tuple(ended[0].json["context_columns"])


def honest(run, folder: Path, name: str) -> None:
    shape = SHAPES[name]
    full, reduced, context = figures(run, write(shape.make(), folder / "tables", ".csv"), shape.ids)
    assert context == shape.context
    if shape.context:
        assert abs(full - reduced) < 0.12  # the contexts of these tables are noise
    else:
        assert full == reduced


def test_declared_and_undeclared_ratings_give_the_same_results(run, tmp_path: Path) -> None:
    honest(run, tmp_path, "movielens")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SHAPES if name not in ("movielens", "weighted", "lastfm")])
def test_outcomes_of_held_out_rows_have_no_effect(run, tmp_path: Path, name: str) -> None:
    honest(run, tmp_path, name)
