import numpy as np
import pytest
import torch

from recall.config import MiniBatchConfig
from recall.models.batch import SparseBatch
from recall.models.fm import FactorizationMachine
from recall.training.minibatch import MiniBatchLearner
from recall.training.rowwise import Adagrad, Adam
from tests.training.worlds import random_pairs, two_blocks


@pytest.mark.parametrize(("ours", "theirs"), [(Adagrad, torch.optim.Adagrad), (Adam, torch.optim.Adam)])
def test_steps_on_all_rows_are_those_of_torch(ours, theirs):
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(6, 3, generator=generator)
    reference = torch.nn.Parameter(table.clone())
    mine, other = ours(table, 0.1), theirs([reference], lr=0.1)
    for _ in range(5):
        gradient = torch.randn(6, 3, generator=generator)
        mine.step(table, torch.arange(6), gradient)
        reference.grad = gradient.clone()
        other.step()
    torch.testing.assert_close(table, reference.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimiser", [Adagrad, Adam])
def test_rows_that_are_not_used_stay_and_are_not_remembered(optimiser):
    table = torch.ones(5, 2)
    stepper = optimiser(table, 0.1)
    stepper.step(table, torch.tensor([1, 3]), torch.ones(2, 2))
    assert torch.equal(table[[0, 2, 4]], torch.ones(3, 2))
    assert torch.all(table[[1, 3]] < 1)
    assert all(torch.all(memory[[0, 2, 4]] == 0) for memory in stepper.state().values())


def learner_of(pairs, config, k=4):
    model = FactorizationMachine(pairs.contexts.n_features, pairs.items.n_features, k)
    model.initialise(0.1, torch.Generator().manual_seed(0))
    return MiniBatchLearner(model, pairs, config, seed=0)


def test_loss_falls_and_the_same_seed_gives_the_same_bits():
    pairs, _, _ = two_blocks(np.random.default_rng(1))
    models = []
    for _ in range(2):
        learner = learner_of(pairs, MiniBatchConfig(method="minibatch", batch=64))
        losses = [learner.sweep() for _ in range(8)]
        models.append(learner.model)
    assert losses[-1] < 0.9 * losses[0]
    for first, second in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize("optimiser", ["adagrad", "adam"])
def test_learns_what_is_known_to_be_right(optimiser):
    pairs, seen, held_out = two_blocks(np.random.default_rng(2))
    rate = {"adagrad": 0.2, "adam": 0.02}[optimiser]
    learner = learner_of(pairs, MiniBatchConfig(method="minibatch", batch=128, learning_rate=rate, optimiser=optimiser))
    for _ in range(40):
        learner.sweep()
    with torch.no_grad():
        phi = learner.model.user_vectors(SparseBatch.of(pairs.contexts))
        scores = (phi @ learner.model.item_vectors(SparseBatch.of(pairs.items)).t()).numpy()
    scores[seen] = -np.inf
    top = np.argsort(-scores, axis=1)[:, :8]
    assert np.take_along_axis(held_out, top, axis=1).mean() > 0.95


def test_a_negative_that_was_observed_counts_for_nothing():
    """With every item observed there is no negative left: the loss is that of the positives alone."""
    pairs = random_pairs(3, contexts=20, items=6, share=1.0)
    config = MiniBatchConfig(method="minibatch", batch=10_000, learning_rate=1e-9)
    learner = learner_of(pairs, config)
    with torch.no_grad():
        owners, items = pairs.owners, pairs.observed.astype(np.int64)
        users, catalogue = SparseBatch.of(pairs.contexts.take(owners)), SparseBatch.of(pairs.items.take(items))
        expected = torch.nn.functional.softplus(-learner.model.score(users, catalogue)) @ torch.from_numpy(pairs.weights)
    assert learner.sweep() == pytest.approx(float(expected) / pairs.weights.sum(), rel=1e-4)
