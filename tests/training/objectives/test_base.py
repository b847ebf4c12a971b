"""Every objective: gradients compared with automatic differentiation of the definition, and expected values."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from recall.training.negatives import Negatives
from recall.training.objectives.pairwise import LabelledLogLoss, Pairwise, bpr, logistic, warp
from recall.training.objectives.softmax import FullSoftmax, InBatchSoftmax, SampledSoftmax, SoftmaxAtK
from recall.training.pairs import ShownPairs
from tests.training.worlds import random_pairs

TEMPERATURE, ACTIVITY = 0.7, 0.6


def world(seed=0, contexts=11, items=9, scale=1.0):
    pairs = random_pairs(seed, contexts, items, 0.3)
    generator = torch.Generator().manual_seed(seed)
    phi = scale * torch.randn(contexts, 5, generator=generator)
    psi = torch.randn(items, 5, generator=generator)
    return pairs, phi, psi, torch.randn(contexts, generator=generator)


def observed(pairs):
    """bool [C, I]."""
    seen = np.zeros((len(pairs.contexts), len(pairs.items)), dtype=bool)
    seen[pairs.owners, pairs.observed] = True
    return torch.from_numpy(seen)


def weight_matrix(pairs):
    weights = torch.zeros(len(pairs.contexts), len(pairs.items), dtype=torch.float64)
    weights[pairs.owners, pairs.observed.astype(np.int64)] = torch.from_numpy(pairs.weights).double()
    return weights


def context_weights(pairs, activity=ACTIVITY):
    weights = weight_matrix(pairs)
    sums = weights.sum(1, keepdim=True)
    changed = weights * sums ** (activity - 1)
    return changed * (weights.sum() / changed.sum())


def full_softmax(pairs, phi, psi):
    """Return [C]: the loss of each context."""
    shares = (phi.double() @ psi.double().t() / TEMPERATURE).log_softmax(1)
    return -(context_weights(pairs) * shares).sum(1)


def objectives(pairs):
    negatives = Negatives(pairs, 0.5)
    return {
        "softmax": FullSoftmax(pairs, TEMPERATURE, ACTIVITY),
        "sampled softmax": SampledSoftmax(pairs, TEMPERATURE, ACTIVITY, 6, 0.5),
        "in-batch softmax": InBatchSoftmax(pairs, TEMPERATURE, True),
        "bpr": Pairwise(pairs, negatives, 3, bpr, False),
        "warp": Pairwise(pairs, negatives, 3, warp(0.8), False),
        "logistic": Pairwise(pairs, negatives, 3, logistic, True),
    }


NAMES = list(objectives(world()[0]))


def ask(objective, batch, phi, psi, offset):
    """Return the objective's loss and gradients for the vectors of a batch."""
    items = slice(None) if batch.items is None else batch.items
    return objective.gradients(batch, phi[batch.contexts], psi[items], offset[batch.contexts])


@pytest.mark.parametrize("name", NAMES)
def test_gradients_match_the_loss(name):
    pairs, phi, psi, offset = world(1)
    objective = objectives(pairs)[name]
    batch = objective.draw(np.arange(0, objective.size, 2), np.random.default_rng(0))
    items = np.arange(len(psi)) if batch.items is None else batch.items
    given = [phi[batch.contexts].double(), psi[items].double(), offset[batch.contexts].double()]
    found = objective.gradients(_double(batch), *given)
    for place, gradient in enumerate((found.phi, found.psi, found.offset)):
        if gradient is None:
            continue
        for at in np.ndindex(*gradient.shape):
            changes = []
            for step in (1e-5, -1e-5):
                moved = [value.clone() for value in given]
                moved[place][at] += step
                changes.append(objective.gradients(_double(batch), *moved).loss)
            assert float(gradient[at]) == pytest.approx((changes[0] - changes[1]) / 2e-5, rel=1e-4, abs=1e-6)


def _double(batch):
    """Convert a batch to float64."""
    values = {name: getattr(batch, name) for name in batch.__dataclass_fields__}
    exact = {
        name: value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for name, value in values.items()
    }
    return type(batch)(**exact)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_the_full_softmax_matches_its_definition(scale):
    pairs, phi, psi, offset = world(2, contexts=300, items=5000 if scale == 1.0 else 40, scale=scale)
    objective = FullSoftmax(pairs, TEMPERATURE, ACTIVITY)
    chosen = np.random.default_rng(0).permutation(300)[:290]
    expected = full_softmax(pairs, phi, psi)[chosen]
    phi, psi = phi.requires_grad_(), psi.requires_grad_()
    by_phi, by_psi = torch.autograd.grad(full_softmax(pairs, phi, psi)[chosen].sum(), [phi, psi])
    with torch.no_grad():
        found = ask(objective, objective.draw(chosen, np.random.default_rng(0)), phi, psi, offset)
    assert found.loss == pytest.approx(float(expected.sum()), rel=1e-5)
    torch.testing.assert_close(found.phi, by_phi[chosen], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.psi, by_psi, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("scale", "items"), [(1.0, 5000), (100.0, 40)])
def test_sl_at_k_matches_its_definition(scale, items):
    pairs, phi, psi, offset = world(2, contexts=300, items=items, scale=scale)
    objective = SoftmaxAtK(pairs, TEMPERATURE, ACTIVITY, 20, 0.9)
    chosen = np.random.default_rng(0).permutation(300)[:290]
    phi, psi = phi.requires_grad_(), psi.requires_grad_()
    scores = phi.double() @ psi.double().t()
    beta = scores.sort(dim=1, descending=True).values[:, 19:20]
    weights = (context_weights(pairs) * torch.sigmoid((scores - beta) / 0.9)).detach()
    losses = -(weights * (scores / TEMPERATURE).log_softmax(1)).sum(1)[chosen]
    by_phi, by_psi = torch.autograd.grad(losses.sum(), [phi, psi])
    with torch.no_grad():
        found = ask(objective, objective.draw(chosen, np.random.default_rng(0)), phi, psi, offset)
    assert found.loss == pytest.approx(float(losses.detach().sum()), rel=1e-5)
    torch.testing.assert_close(found.phi, by_phi[chosen], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.psi, by_psi, rtol=1e-3, atol=1e-3)


def test_sl_at_k_of_more_items_than_there_are_measures_against_the_last():
    pairs, phi, psi, offset = world(5)
    every, many = (SoftmaxAtK(pairs, TEMPERATURE, ACTIVITY, top, 0.9) for top in (len(psi), 10 * len(psi)))
    batch = every.draw(np.arange(len(phi)), np.random.default_rng(0))
    assert ask(every, batch, phi, psi, offset).loss == ask(many, batch, phi, psi, offset).loss


def test_an_epoch_covers_the_observed_weight():
    pairs = world(3)[0]
    for objective in objectives(pairs).values():
        assert objective.weight == pytest.approx(float(pairs.weights.sum()), rel=1e-6)
    batch = FullSoftmax(pairs, 1.0, ACTIVITY).draw(np.arange(len(pairs.contexts)), np.random.default_rng(0))
    assert float(batch.weights.sum()) == pytest.approx(float(pairs.weights.sum()), rel=1e-5)


def test_negatives_are_unobserved_and_follow_their_distribution():
    pairs = random_pairs(4, contexts=6, items=8, share=0.4)
    negatives, rng = Negatives(pairs, 0.7), np.random.default_rng(0)
    drawn = negatives.draw(np.arange(6), 40_000, rng)
    law = allowed(pairs, 0.7)
    for context in range(6):
        shares = np.bincount(drawn[context], minlength=8) / 40_000
        assert np.abs(shares - law[context]).max() < 0.012
        assert shares[observed(pairs)[context].numpy()].sum() == 0


def allowed(pairs, popularity):
    """Return float64 [C, I]: the distribution of a rejection-sampled draw for each context."""
    counts = np.bincount(pairs.observed, minlength=len(pairs.items))
    law = np.where(observed(pairs).numpy(), 0.0, np.maximum(counts, 1) ** popularity)
    return law / law.sum(1, keepdims=True)


def test_hits_are_what_contexts_and_items_were_observed_with():
    pairs = random_pairs(4, contexts=6, items=8, share=0.4)
    negatives, rng = Negatives(pairs, 0.5), np.random.default_rng(3)
    contexts, items = rng.permutation(len(pairs.contexts))[:5], rng.integers(0, len(pairs.items), 40)
    expected = np.argwhere(negatives.observed(contexts[:, None], items[None, :]))
    assert len(expected)
    hits = negatives.hits(contexts, items)
    assert hits[np.lexsort(hits.T[::-1])].tolist() == expected.tolist()
    assert negatives.hits(contexts, items[:0]).shape == (0, 2)


def test_the_sampled_softmax_is_unbiased():
    pairs, phi, psi, offset = world(5)
    objective = SampledSoftmax(pairs, TEMPERATURE, 1.0, 4, 0.5)
    rng, chosen = np.random.default_rng(0), np.arange(len(phi))
    scores = phi @ psi.t() / TEMPERATURE
    rows = []
    for _ in range(400):
        batch = objective.draw(chosen, rng)
        rows.append(_sums(objective, batch, phi, psi, offset, weight_matrix(pairs), scores))
    sums = np.stack(rows)
    exact = scores.exp().sum(1).numpy()
    error = sums.std(0) / np.sqrt(len(sums))
    assert np.all(np.abs(sums.mean(0) - exact) < 4.5 * error + 1e-6 * exact)
    assert np.any(sums.std(0) > 0.05 * exact)


def _sums(objective, batch, phi, psi, offset, weights, scores):
    """Recover the softmax denominator from the loss, one context at a time."""
    result = []
    for context in range(len(phi)):
        lone = objective.__class__.gradients
        result.append(lone(objective, _only(batch, context), phi[[context]], psi[batch.items], offset[[context]]).loss)
    total = weights.sum(1).numpy()
    taken = (weights * scores.double()).sum(1).numpy()
    return np.exp((np.array(result) + taken) / total)


def _only(batch, context):
    """Return the batch restricted to one context."""
    entries = slice(int(batch.indptr[context]), int(batch.indptr[context + 1]))
    mine = batch.hits[batch.hits[:, 0] == context].copy()
    mine[:, 0] = 0
    pointers = np.array([0, entries.stop - entries.start])
    return type(batch)(
        batch.contexts[[context]],
        batch.items,
        pointers,
        batch.observed[entries],
        batch.weights[entries],
        batch.drawn,
        batch.correction,
        mine,
    )


def test_the_sampled_softmax_converges_to_the_full_softmax():
    pairs, phi, psi, offset = world(6)
    exact = full_softmax(pairs, phi, psi).sum()
    objective = SampledSoftmax(pairs, TEMPERATURE, ACTIVITY, 200_000, 0.5)
    batch = objective.draw(np.arange(len(phi)), np.random.default_rng(0))
    assert ask(objective, batch, phi, psi, offset).loss == pytest.approx(float(exact), rel=5e-3)


def test_the_in_batch_softmax_estimates_the_sum_over_unobserved_items():
    pairs, phi, psi, _ = world(7)
    pairs = type(pairs)(pairs.contexts, pairs.items, pairs.indptr, pairs.observed, np.ones_like(pairs.weights))
    objective, rng = InBatchSoftmax(pairs, TEMPERATURE, True), np.random.default_rng(0)
    scores = (phi @ psi.t() / TEMPERATURE).double()
    found = np.zeros(objective.size)
    squares, rounds, times = np.zeros(objective.size), 1500, np.zeros(objective.size)
    for _ in range(rounds):
        chosen = rng.integers(0, objective.size, 6)  # with replacement, as in the distribution of the estimate
        batch = objective.draw(chosen, rng)
        place = batch.place
        logits = scores[batch.contexts][:, batch.items[place]] - batch.correction.double()
        logits[batch.hits] = -torch.inf
        logits.diagonal().add_(batch.correction)
        sums = logits.exp().sum(1).numpy()
        np.add.at(found, chosen, sums)
        np.add.at(squares, chosen, sums**2)
        np.add.at(times, chosen, 1)
        shares = torch.from_numpy(sums).log() - logits.diagonal()
        loss = objective.gradients(batch, phi[batch.contexts], psi[batch.items], phi[:, 0]).loss
        assert loss == pytest.approx(
            float(shares.sum()), rel=1e-3, abs=1e-4
        )  # the averaged values are those the objective uses
    rest = scores.exp().masked_fill(observed(pairs), 0.0).sum(1)
    exact = (scores.exp()[pairs.owners, pairs.observed.astype(np.int64)] + rest[pairs.owners]).numpy()
    mean = found / times
    error = np.sqrt(np.maximum(squares / times - mean**2, 0) / times)
    assert np.all(np.abs(mean - exact) < 5 * error + 1e-6 * exact)


@pytest.mark.parametrize("name", ["bpr", "logistic"])
def test_sampled_losses_and_gradients_are_unbiased(name):
    pairs, phi, psi, offset = world(8)
    loss = {"bpr": bpr, "logistic": logistic}[name]
    objective = Pairwise(pairs, Negatives(pairs, 0.5), 2, loss, name == "logistic")
    law, weights = torch.from_numpy(allowed(pairs, 0.5)), weight_matrix(pairs)
    exact_phi, exact_psi = phi.double().requires_grad_(), psi.double().requires_grad_()
    scores = exact_phi @ exact_psi.t()
    if name == "logistic":
        scores = scores + offset.double()[:, None]
        each = functional.softplus(-scores) + (law * functional.softplus(scores)).sum(1, keepdim=True)
    else:
        each = (law[:, None, :] * functional.softplus(scores[:, None, :] - scores[:, :, None])).sum(2)
    total = (weights * each).sum()
    by_phi, by_psi = torch.autograd.grad(total, [exact_phi, exact_psi])
    rng = np.random.default_rng(0)
    drawn = [ask(objective, objective.draw(np.arange(objective.size), rng), phi, psi, offset) for _ in range(1500)]
    _near([np.array([one.loss]) for one in drawn], np.array([total.item()]))
    _near([one.phi.numpy() for one in drawn], by_phi.numpy())
    _near([one.psi.numpy() for one in drawn], by_psi.numpy())


def test_warp_is_unbiased():
    """The n-th draw is the first violator with probability (1 - p)^(n - 1) p, and any violator as likely as its draw."""
    pairs, phi, psi, offset = world(9)
    draws, margin = 4, 0.8
    objective = Pairwise(pairs, Negatives(pairs, 0.5), draws, warp(margin), False)
    law, scores, weights = allowed(pairs, 0.5), (phi.double() @ psi.double().t()).numpy(), weight_matrix(pairs).numpy()
    total = 0.0
    for context, item in zip(pairs.owners, pairs.observed, strict=True):
        hinge = np.maximum(margin - scores[context, item] + scores[context], 0)
        broken = law[context] * (hinge > 0)
        likely, others = broken.sum(), int((law[context] > 0).sum())
        ranks = [np.sum(1 / np.arange(1, others // n + 1)) for n in range(1, draws + 1)]
        expected = sum((1 - likely) ** n * rank for n, rank in enumerate(ranks)) * (broken * hinge).sum()
        total += weights[context, item] * expected
    rng = np.random.default_rng(0)
    drawn = [ask(objective, objective.draw(np.arange(objective.size), rng), phi, psi, offset).loss for _ in range(1500)]
    _near([np.array([one]) for one in drawn], np.array([total]))


def _near(drawn, exact):
    """Check that the sample mean is within five standard errors of the exact value."""
    values = np.stack(drawn).astype(np.float64)
    error = values.std(0) / np.sqrt(len(values))
    assert np.all(np.abs(values.mean(0) - exact) < 5 * error + 1e-5)


def test_the_labelled_log_loss_matches_its_definition():
    pairs, phi, psi, offset = world(10)
    shown = ShownPairs(np.array([2, 2, 7]), np.array([0, 5, 5], dtype=np.int32), np.array([1.0, 0.5, 2.0], dtype=np.float32))
    objective = LabelledLogLoss(pairs, shown)
    contexts = np.concatenate([pairs.owners, shown.contexts])
    items = np.concatenate([pairs.observed, shown.items]).astype(np.int64)
    weights = torch.from_numpy(np.concatenate([pairs.weights, shown.weights]))
    signs = torch.tensor([-1.0] * len(pairs.observed) + [1.0] * 3)
    given = [value.clone().requires_grad_() for value in (phi, psi, offset)]
    scores = (given[0][contexts] * given[1][items]).sum(1) + given[2][contexts]
    loss = (weights * functional.softplus(signs * scores)).sum()
    expected = torch.autograd.grad(loss, given)
    batch = objective.draw(np.random.default_rng(0).permutation(objective.size), np.random.default_rng(0))
    found = ask(objective, batch, phi, psi, offset)
    assert objective.weight == pytest.approx(float(weights.sum()), rel=1e-6)
    assert found.loss == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(found.phi, expected[0][batch.contexts], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.psi, expected[1][batch.items], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.offset, expected[2][batch.contexts], rtol=1e-4, atol=1e-5)
