"""Regressions of the vectors of untrained, random models on the features of a small generated shop."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recall.config import parse_config
from recall.data.dataset import Dataset, load_dataset
from recall.data.split import TEST
from recall.data.synthetic import SyntheticConfig, generate
from recall.features.csr import SparseRows
from recall.features.encoder import FeatureEncoder
from recall.models.torch.base import SparseBatch
from recall.models.torch.fm import FactorizationMachine
from recall.models.torch.registry import new_model
from recall.training.item_regression import ItemRegression, Ridge
from recall.training.masking import Roles

CONFIG = {
    "name": "shop",
    "data": {
        "interactions": "interactions.parquet",
        "items": "items.parquet",
        "time": "time",
        "split": {"by": "items", "test": 0.2, "valid": 0},
    },
    "fields": {
        "user_id": {"side": "user", "kind": "categorical"},
        "item_id": {"side": "item", "kind": "categorical"},
        "category": {"side": "item", "kind": "categorical"},
        "tags": {"side": "item", "kind": "bag"},
        "price": {"side": "item", "kind": "numeric"},
        "tagged": {"side": "item", "kind": "cross", "of": ["item_id", "category"]},
    },
    "model": {"k": 5},
}
STRENGTH = 2.0


def dense(rows):
    """The rows as a float64 matrix."""
    matrix = np.zeros((len(rows), rows.n_features))
    np.add.at(matrix, (np.repeat(np.arange(len(rows)), np.diff(rows.indptr)), rows.indices), rows.weights)
    return matrix


def ridge(matrix, targets, weights, strength):
    """The closed form."""
    weighted = matrix * (weights / weights.mean())[:, None]
    return np.linalg.solve(matrix.T @ weighted + strength * np.eye(matrix.shape[1]), weighted.T @ targets)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 8), st.sampled_from([0.3, 1.0, 10.0]))
def test_a_ridge_regression_has_its_closed_form(seed, n, features, strength):
    rng = np.random.default_rng(seed)
    matrix = (rng.random((n, features)) < 0.5) * rng.standard_normal((n, features))
    owners, columns = np.nonzero(matrix)
    rows = SparseRows.from_coo(owners, columns, matrix[owners, columns], n, features)
    weights, targets = rng.random(n).astype(np.float32) + 0.1, rng.standard_normal((n, 3)).astype(np.float32)
    weighted = matrix * (weights / weights.mean())[:, None].astype(np.float64)
    system, right = matrix.T @ weighted + strength * np.eye(features), weighted.T @ targets

    def size(residual):
        """The norm of each column; the steps end when it has fallen by a factor of 1,000."""
        return np.sqrt((residual**2 / system.diagonal()[:, None]).sum(0))

    solver = Ridge(rows, weights)
    found = solver.solve(torch.from_numpy(targets), strength)
    for table in (found, solver.solve(torch.from_numpy(targets), strength, found)):
        assert (size(right - system @ table.numpy()) <= 1.01e-3 * size(right) + 1e-6).all()


@dataclass
class Shop:
    """A split shop, with the rows of its items."""

    dataset: Dataset
    encoder: FeatureEncoder
    rows: SparseRows
    trained: np.ndarray
    new: np.ndarray
    counts: np.ndarray

    def model(self, cosine):
        """A random model."""
        config = parse_config({**CONFIG, "model": {"k": 5, "cosine": cosine}, "train": {"objective": "softmax"}})
        model = new_model(config.model, self.encoder.user_fields, self.encoder.item_fields)
        model.initialise(1.0, torch.Generator().manual_seed(0))
        with torch.no_grad():
            model.item_weights.normal_(generator=torch.Generator().manual_seed(1))
        return model

    def vectors(self, model, rows, kind=None):
        """Vectors of item rows by a model, or by a kind of model that it is."""
        batch = SparseBatch.of(rows, fields=self.encoder.item_fields)
        with torch.no_grad():
            return (kind or type(model)).item_vectors(model, batch).double().numpy()

    @property
    def block(self):
        return self.encoder.id_blocks("item")[0]

    @property
    def roles(self):
        return Roles.of(self.encoder.item_fields, self.rows.take(self.trained), self.encoder)

    @torch.no_grad()
    def regress(self, model, gain=1.0):
        """Regress on all trained items, and complete the ids."""
        regression = ItemRegression(model, self.encoder, self.block, self.rows, self.roles, self.counts)
        regression.fit(self.trained, STRENGTH, gain)
        regression.complete()


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    generate(SyntheticConfig(users=100, items=150, interactions=2_000)).write(folder)
    dataset = load_dataset(parse_config(CONFIG), folder)
    encoder = FeatureEncoder.fit(dataset)
    item = dataset.events["item"].to_numpy()
    counts = np.bincount(item[dataset.training], minlength=len(dataset.items))
    new = np.setdiff1d(item[dataset.select(TEST)], np.flatnonzero(counts))
    return Shop(dataset, encoder, encoder.encode_items(dataset.items), np.flatnonzero(counts), new, counts)


@pytest.mark.parametrize(("cosine", "gain"), [(False, 1.0), (True, 1.0), (False, 2.0)])
def test_vectors_of_trained_items_do_not_change(cosine, gain, shop):
    model = shop.model(cosine)
    before = shop.vectors(model, shop.rows)
    shop.regress(model, gain)
    after = shop.vectors(model, shop.rows)
    assert np.abs(after - before)[shop.trained].max() < 1e-5
    assert np.abs(after - before)[shop.new].max() > 0.1
    phi = np.random.default_rng(0).standard_normal((50, before.shape[1]))
    assert phi @ after[shop.trained].T == pytest.approx(phi @ before[shop.trained].T, abs=1e-4)


@pytest.mark.parametrize(("cosine", "gain"), [(False, 1.0), (True, 1.0), (False, 3.0)])
def test_new_items_have_the_vectors_that_the_ridge_predicts(cosine, gain, shop):
    model = shop.model(cosine)
    targets = shop.vectors(model, shop.rows.take(shop.trained), FactorizationMachine)
    if cosine:
        lengths = np.linalg.norm(targets, axis=1, keepdims=True)
        targets *= lengths.mean() / lengths
    shop.regress(model, gain)
    design, weights = dense(shop.roles.as_new(shop.rows.take(shop.trained))), np.log1p(shop.counts[shop.trained])
    factors = ridge(design, targets[:, 1:], weights, STRENGTH)
    mean = (design @ factors).mean(0)
    factors *= gain
    factors[shop.block.offset] += (1 - gain) * mean

    def pairs(matrix):
        sums = matrix @ factors
        return ((sums**2).sum(1) - matrix**2 @ (factors**2).sum(1)) / 2

    first_order = ridge(design, targets[:, 0] - pairs(design), weights, STRENGTH)
    of_new = dense(shop.rows.take(shop.new))
    expected = np.column_stack([of_new @ first_order + pairs(of_new), of_new @ factors])
    found = shop.vectors(model, shop.rows.take(shop.new), FactorizationMachine)
    assert found == pytest.approx(expected, abs=0.02)
    assert np.abs(expected).std() > 0.1


def test_an_id_outside_the_catalogue_begins_as_an_unknown_one(shop):
    model, block = shop.model(False), shop.block
    kept = np.setdiff1d(np.arange(len(shop.rows)), shop.trained[:1])
    of_one = shop.rows.take(shop.trained[:1])
    rows = shop.rows.take(kept)
    regression = ItemRegression(model, shop.encoder, block, rows, shop.roles, shop.counts[kept])
    with torch.no_grad():
        regression.fit(np.flatnonzero(shop.counts[kept]), STRENGTH)
        regression.complete()
    as_new = shop.roles.as_new(of_one)
    assert shop.vectors(model, of_one) == pytest.approx(shop.vectors(model, as_new), abs=0.5)
    row = of_one.indices[(of_one.indices >= block.offset) & (of_one.indices < block.offset + block.size)]
    assert torch.equal(model.item_factors[int(row[0])], model.item_factors[block.offset])
