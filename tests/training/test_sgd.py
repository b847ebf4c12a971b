import numpy as np
import pytest
import torch

from recall.config import OpeningConfig, PairwiseConfig, SoftmaxConfig, SquareConfig
from recall.models.torch.base import SparseBatch
from recall.models.torch.fm import FactorizationMachine
from recall.models.torch.registry import CosineFM
from recall.training.train import new_learner
from tests.training.worlds import random_pairs, two_blocks

CONFIGS = {
    "softmax": SoftmaxConfig(objective="softmax", batch=16, learning_rate=0.05),
    "sampled softmax": SoftmaxConfig(objective="softmax", batch=16, learning_rate=0.05, candidates="sampled", samples=16),
    "in-batch softmax": SoftmaxConfig(objective="softmax", batch=64, candidates="in-batch"),
    "bpr": PairwiseConfig(objective="bpr", batch=64),
    "warp": PairwiseConfig(objective="warp", batch=64),
    "logistic": PairwiseConfig(objective="logistic", batch=64),
    "hard bpr": PairwiseConfig(objective="bpr", batch=64, hard=0.5, pool=20),
    "adagrad": PairwiseConfig(objective="bpr", batch=64, optimiser="adagrad", learning_rate=0.1, schedule="constant"),
}


def model_of(pairs, kind=FactorizationMachine, k=4, scale=0.3):
    model = kind(pairs.contexts.n_features, pairs.items.n_features, k)
    model.initialise(scale, torch.Generator().manual_seed(0))
    return model


@torch.no_grad()
def scores_of(model, pairs):
    phi = model.user_vectors(SparseBatch.of(pairs.contexts))
    return (phi @ model.item_vectors(SparseBatch.of(pairs.items)).t()).numpy()


# cosine similarity is part of the model: one objective of each family covers it, the others are slow tests
COSINES = [pytest.param(name, True, marks=[] if name in ("softmax", "bpr") else pytest.mark.slow) for name in CONFIGS]


@pytest.mark.parametrize(("name", "cosine"), [*((name, False) for name in CONFIGS), *COSINES])
def test_the_solver_learns_a_known_model(name, cosine):
    pairs, seen, held_out = two_blocks(np.random.default_rng(2))
    config = CONFIGS[name].model_copy(update={"epochs": 30})
    if cosine and "softmax" in name:
        config = config.model_copy(update={"temperature": 0.2})
    model = model_of(pairs, CosineFM if cosine else FactorizationMachine)
    learner = new_learner(config, model, pairs, seed=0)
    losses = [learner.sweep() for _ in range(30)]
    assert losses[-1] < losses[0]
    scores = scores_of(learner.model, pairs)
    scores[seen] = -np.inf
    top = np.argsort(-scores, axis=1)[:, :8]
    assert np.take_along_axis(held_out, top, axis=1).mean() > 0.9


def test_an_opening_is_one_sweep_of_the_square_loss():
    pairs = random_pairs(1)
    opening = OpeningConfig(sweeps=3, drop=0.0)
    learner = new_learner(SoftmaxConfig(objective="softmax", opening=opening), model_of(pairs), pairs, seed=0)
    learner.sweep()
    alone = new_learner(SquareConfig(sweeps=3, drop=0.0), model_of(pairs), pairs, seed=0)
    for _ in range(3):
        alone.sweep()
    for ours, theirs in zip(learner.model.parameters(), alone.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    before = [table.clone() for table in learner.model.parameters()]
    learner.sweep()
    assert any(not torch.equal(table, old) for table, old in zip(learner.model.parameters(), before, strict=True))


def test_a_continued_model_has_no_opening():
    pairs = random_pairs(2)
    config = SoftmaxConfig(objective="softmax", opening=OpeningConfig(), learning_rate=1e-12, dropout=0.0)
    model = model_of(pairs)
    before = [table.clone() for table in model.parameters()]
    new_learner(config, model, pairs, seed=0, warm=True).sweep()
    for table, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(table, old, atol=1e-8, rtol=0)


def test_steps_are_invariant_to_the_scale_of_weights():
    """Doubling all weights is the same problem in another unit."""
    pairs = random_pairs(3)
    double = type(pairs)(
        pairs.contexts, pairs.items, pairs.indptr, pairs.observed, 2 * pairs.weights, pairs.user_fields, pairs.item_fields
    )
    models = []
    for one in (pairs, double):
        learner = new_learner(CONFIGS["softmax"], model_of(one), one, seed=0)
        losses = [learner.sweep() for _ in range(2)]
        models.append((losses, learner.model))
    assert models[0][0] == pytest.approx(models[1][0], rel=1e-5)
    for ours, theirs in zip(*(model.parameters() for _, model in models), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
