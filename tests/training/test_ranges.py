"""Weights of ranges of lags that share one table, learnt with it."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call

from recall.bundle.reader import load_bundle
from recall.config import RunConfig, parse_config
from recall.data.contexts import build_contexts
from recall.data.dataset import Dataset, load_dataset
from recall.errors import ConfigError, TrainingInterruptedError
from recall.features.csr import SparseRows
from recall.features.encoder import FeatureEncoder
from recall.features.vocabulary import MISSING, UNKNOWN
from recall.models.torch.base import SparseBatch
from recall.models.torch.fm import FactorizationMachine
from recall.models.torch.registry import new_model
from recall.publish.export import export
from recall.training.incremental import prepare_warm_start, retrain
from recall.training.loop import SweepReport
from recall.training.pairs import ObservedPairs
from recall.training.ranges import TiedRows
from recall.training.ranks import ALONE
from recall.training.sgd import _Vectors
from recall.training.train import TrainResult, begin, train
from tests.conftest import TINY, drawn, write_tiny_tables
from tests.training.test_ranks import on_ranks

HISTORY = {"kind": "history", "lags": [[1, 1], [2, 3], [4, 6]], "shared": True, "learn_weights": True}
OBJECTIVES = [
    {"sweeps": 3, "unobserved": 5.0},
    {"objective": "softmax", "epochs": 3, "batch": 8, "opening": {"sweeps": 2}},
    {"objective": "bpr", "epochs": 3, "batch": 32},
    {"objective": "logistic", "epochs": 3, "batch": 32},
]


def config_of(kind: str = "fm", train: dict | None = None, cosine: bool = False, **history: object) -> RunConfig:
    fields = {**TINY["fields"], "history": {**HISTORY, **history}}
    model = {"kind": kind, "k": 4, "cosine": cosine}
    return parse_config({**TINY, "fields": fields, "model": model, "train": train or OBJECTIVES[0]})


@pytest.fixture
def dataset(tiny_folder: Path) -> Dataset:
    return load_dataset(config_of(), tiny_folder)


def trained(config: RunConfig, dataset: Dataset) -> TrainResult:
    return train(config, dataset, FeatureEncoder.fit(dataset), lambda report: None)


# Recovery of known weights.


def table_of_transitions(rng: np.random.Generator, share: float, additive: bool) -> pl.DataFrame:
    """Interactions whose next item depends on the last two, by one matrix B and the weights 1 and `share`.

    The chances of the next item are proportional to B[last] + share B[the one before], or to exp of that.
    """
    items, users, length = 12, 60, 80
    matrix = rng.dirichlet(np.full(items, 0.3), items) if additive else rng.normal(0, 1.5, (items, items))
    last, before = rng.integers(0, items, (2, users))
    rows = []
    for _ in range(length):
        chance = matrix[last] + share * matrix[before]
        chance = np.cumsum(chance if additive else np.exp(chance), axis=1)
        last, before = (rng.random((users, 1)) * chance[:, -1:] < chance).argmax(1), last
        rows.append(last)
    user = np.repeat(np.arange(users), length)
    return pl.DataFrame({"user_id": user, "item_id": np.stack(rows, 1).ravel(), "time": np.tile(np.arange(length), users)})


RECOVERED_BY = {
    "square": {"sweeps": 7, "unobserved": 1000.0, "activity": 1.0, "popularity": 0.0, "regularisation": 1e-6},
    "softmax": {"objective": "softmax", "epochs": 5, "batch": 256, "learning_rate": 0.1, "dropout": 0.0, "temperature": 1.0},
    "bpr": {"objective": "bpr", "epochs": 3, "batch": 512, "learning_rate": 0.1, "dropout": 0.0},
}


@pytest.mark.parametrize(("method", "start"), [*((method, 1.0) for method in RECOVERED_BY), ("square", -0.5)])
def test_true_weights_are_recovered(method: str, start: float, tmp_path: Path) -> None:
    table_of_transitions(np.random.default_rng(1), 0.25, method == "square").write_parquet(tmp_path / "interactions.parquet")
    config = parse_config(
        {
            "data": {"time": "time", "split": {"by": "last", "test": 1, "valid": 0}},
            "fields": {
                "previous": {**HISTORY, "lags": [[1, 1], [2, 2]], "norm": "none", "weights": [1, start]},
                "item_id": {"side": "item", "kind": "categorical"},
            },
            "model": {"k": 12},
            "train": {**RECOVERED_BY[method], "drop": 0.0},
        }
    )
    result = trained(config, load_dataset(config, tmp_path))
    first, second = result.encoder.histories["previous"].field.weights
    assert first == 1.0
    assert second == pytest.approx(0.25, abs=0.03)
    assert result.note.endswith(f"; ranges of previous weigh 1, {second:.3g}")


# The tied parameters.


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_tables(folder)
    return load_dataset(config_of(), folder)


@settings(max_examples=3)
@given(seed=st.integers(0, 1000))
@pytest.mark.parametrize(("kind", "cosine"), [("fm", False), ("fwfm", False), ("ffm", False), ("fm", True)])
def test_gradients_are_differences_of_the_exported_model(kind: str, cosine: bool, seed: int, world: Dataset) -> None:
    """The exported form has the factors as weights of its encoder.

    Its vectors are linear in them, and its offsets quadratic, so that differences are exact; those of cosines are near for
    small steps.
    """
    torch.manual_seed(seed)
    config, rng = config_of(kind, OBJECTIVES[1], cosine), np.random.default_rng(seed)
    encoder, step = FeatureEncoder.fit(world), 0.002 if cosine else 1.0
    ties = TiedRows.of(encoder)
    assert ties is not None
    model = drawn(new_model(config.model, encoder.user_fields, encoder.item_fields), seed).double()
    ties.begin(model)
    positions = rng.choice(world.training, 5, replace=False)
    items = SparseBatch.of(encoder.encode_items(world.items), torch.float64, encoder.item_fields)
    by_phi, by_offset = torch.randn(5, model.dim, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    table, factors = model.user_factors.detach().clone(), torch.from_numpy(rng.normal(1, 0.5, 2))

    def rows_of(one: FeatureEncoder) -> SparseRows:
        contexts = build_contexts(world, one, positions)
        return contexts.features.take(contexts.context)

    def exported(factors: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            model.user_factors.copy_(table)
            model.range_factors = torch.nn.Parameter(factors)
            small, learned, _ = ties.folded(model, encoder)
            batch = SparseBatch.of(rows_of(learned), torch.float64, learned.user_fields)
            small = small.double()
            return (small.user_vectors(batch) * by_phi).sum() + small.user_offset(batch) @ by_offset

    users, features, numbers = ties.local(*SparseBatch.local(rows_of(encoder), torch.float64, encoder.user_fields))
    moved = {"user_factors": table[features].requires_grad_(), "range_factors": factors.clone().requires_grad_()}
    given_ = {"user_weights": model.user_weights.detach()[features], **moved}
    phi, _, offset = functional_call(
        _Vectors(model, with_offset=True), {f"model.{name}": one for name, one in given_.items()}, (users, items, numbers)
    )
    value = (phi * by_phi).sum() + offset @ by_offset
    assert float(exported(factors, table)) == pytest.approx(float(value.detach()), rel=1e-4, abs=1e-4)
    by_rows, by_factors = torch.autograd.grad(value, list(moved.values()))
    along_rows, along_factors = step * torch.randn_like(by_rows), step * torch.randn_like(by_factors)
    change = torch.zeros_like(table).index_copy_(0, features, along_rows)
    for expected, factor_step, row_step in (
        (by_factors @ along_factors, along_factors, torch.zeros_like(change)),
        ((by_rows * along_rows).sum(), torch.zeros_like(factors), change),
    ):
        ends = [exported(factors + sign * factor_step, table + sign * row_step) for sign in (1, -1)]
        assert float(ends[0] - ends[1]) / 2 / step == pytest.approx(float(expected) / step, rel=1e-3, abs=1e-3)


@given(seed=st.integers(0, 1000))
def test_factors_minimise_a_quadratic_of_the_tied_table(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    ties = TiedRows(torch.tensor([0, 1, 0, 1, 0, 1, 6]), torch.tensor([0, 0, 1, 1, 2, 2, 0]), ("past", "past"))
    model = FactorizationMachine(7, 2, 3).double()
    drawn(model, seed)
    ties.begin(model)
    root, goal = (torch.randn(size, generator=generator, dtype=torch.float64) for size in ((21, 21), (7, 3)))

    def pull(table: torch.Tensor, change: bool) -> torch.Tensor:
        product = (root @ root.t() @ table.flatten()).view(7, 3)
        return product if change else goal - product

    ties.solve(model, model.user_factors.detach().clone(), pull, ALONE)
    factors = TiedRows.factors(model).detach().clone().requires_grad_()
    table = model.user_factors.detach()[ties.base] * torch.cat([torch.ones(1), factors])[ties.number][:, None]
    assert torch.allclose(table, model.user_factors)
    loss = 0.5 * (table * pull(table, True)).sum() - (goal * table).sum()
    scale = float((table * pull(table, True)).sum().detach()) + 1
    assert torch.autograd.grad(loss, factors)[0].abs().max() < 1e-4 * scale


@pytest.mark.parametrize("train_section", OBJECTIVES, ids=lambda section: section.get("objective", "square"))
def test_a_resumed_run_is_bit_identical(train_section: dict, dataset: Dataset, tmp_path: Path) -> None:
    config, checkpoint = config_of(train=train_section), tmp_path / "checkpoint.safetensors"
    whole, encoder = trained(config, dataset), FeatureEncoder.fit(dataset)

    def interrupt(report: SweepReport) -> None:
        if report.sweep == 1:
            raise KeyboardInterrupt

    with pytest.raises(TrainingInterruptedError):
        train(config, dataset, encoder, interrupt, checkpoint)
    resumed = train(config, dataset, encoder, lambda report: None, checkpoint, resume=True)
    assert resumed.metrics == whole.metrics
    weights = whole.encoder.histories["history"].field.weights
    assert resumed.encoder.schema == whole.encoder.schema
    assert weights[0] == 1
    assert len(set(weights)) == 3
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("train_section", OBJECTIVES[:2], ids=["square", "softmax"])
def test_training_is_equal_on_several_ranks(train_section: dict, world: Dataset) -> None:
    silent = {"drop": 0.0, **({"dropout": 0.0} if "objective" in train_section else {})}
    config, encoder = config_of(train=train_section | silent), FeatureEncoder.fit(world)
    pairs = ObservedPairs.of(world, encoder, world.training)

    def run(part: ObservedPairs) -> dict[str, torch.Tensor]:
        learner = begin(config, encoder, part)
        for _ in range(3):
            learner.sweep()
        return {name: table.detach() for name, table in learner.model.named_parameters()}

    alone = run(pairs)
    assert "range_factors" in alone
    for tables in on_ranks(pairs, run, (40,)):
        for name, table in tables.items():
            assert torch.allclose(table, alone[name], atol=1e-3), name


@pytest.mark.parametrize("start", [[1.0, 1.0], [-1.0, 0.5]])
def test_rows_that_nothing_trains_are_means_of_the_exported_model(start: list[float], tiny_folder: Path) -> None:
    """An empty history has the mean of what histories contribute, with the weights that were learnt.

    An unknown item has the mean of the items, by how often each is in the first range.
    """
    config = config_of(lags=[[1, 1], [2, 2]], norm="none", weights=start)
    dataset = load_dataset(config, tiny_folder)
    result = trained(config, dataset)
    encoder, table = result.encoder, result.model.user_factors.detach()
    block = encoder.history_blocks[0]
    pairs = ObservedPairs.of(dataset, encoder, dataset.training)
    seen = pairs.contexts.column_sums(np.diff(pairs.indptr))[block.offset : block.offset + block.size]
    mean = torch.from_numpy(seen / np.diff(pairs.indptr).sum()).float() @ table[block.offset : block.offset + block.size]
    assert torch.allclose(table[block.offset + MISSING], mean, atol=1e-5)
    first = ObservedPairs.of(dataset, FeatureEncoder.fit(dataset), dataset.training)
    often = np.abs(first.contexts.column_sums(np.diff(first.indptr))[block.offset : block.offset + block.size])
    mean = torch.from_numpy(often / often.sum()).float() @ table[block.offset : block.offset + block.size]
    assert mean.norm() > 0.01
    assert torch.allclose(table[block.offset + UNKNOWN], mean, atol=1e-5)


# What is published.


def test_the_bundle_has_numbers_and_incremental_runs_keep_them(
    dataset: Dataset, tiny_folder: Path, tiny_additions: Path, tmp_path: Path
) -> None:
    config = config_of()
    result = trained(config, dataset)
    export(result.model, result.encoder, dataset, config, tmp_path, popularity=result.popularity)  # proves the scores
    bundle = load_bundle(tmp_path)
    published = bundle.manifest.schema_.histories["history"]
    assert published == result.encoder.histories["history"].field
    assert (published.weights[0], len(published.weights), published.learn_weights) == (1.0, 3, False)
    assert bundle.encoder.schema.difference(config.schema_) == ""
    ground = prepare_warm_start(config, tmp_path, tiny_additions, tiny_folder, tmp_path)
    continued = train(config, ground.dataset, ground.encoder, lambda report: None, start=ground.start)
    assert continued.encoder.histories["history"].field == published
    full = retrain(config, ground, continued, lambda report: None).trained
    assert full.encoder.histories["history"].field.weights[1:] != published.weights[1:]
    with pytest.raises(ConfigError, match="field 'history' has lags"):
        prepare_warm_start(config_of(lags=[[1, 1], [2, 2], [3, 6]]), tmp_path, tiny_additions, tiny_folder, tmp_path)
