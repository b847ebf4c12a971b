import numpy as np
import pytest
import torch

from recall.data.contexts import build_contexts
from recall.evaluation.offline import _word, ablate
from recall.models.torch.base import SparseBatch, side_of
from tests.evaluation import reference
from tests.evaluation.conftest import model_of


def ablation_of(world):
    return ablate(world.replay, world.recommender.bundle, world.config.evaluation, 0)


def batch(rows, fields):
    return SparseBatch.of(rows, torch.float64, fields)


def test_every_field_of_both_sides_is_ablated(world):
    ablation = ablation_of(world)
    assert [worth.field for worth in ablation.fields] == list(world.config.fields)
    assert [worth.side for worth in ablation.fields] == [field.side for field in world.config.fields.values()]
    assert ablation.requests == len(world.held)


def test_ablating_a_field_zeroes_its_parameters(world):
    """A model with rows of 0 for a field scores as without the field."""
    encoder, dataset = world.encoder, world.dataset
    contexts = build_contexts(dataset, encoder, world.held.event)
    users, items = contexts.features.take(contexts.context), encoder.encode_items(dataset.items)
    for worth in ablation_of(world).fields:
        model = model_of(world.config, encoder).double()
        with torch.no_grad():
            for side, blocks in (("user", encoder.user_blocks), ("item", encoder.item_blocks)):
                for block in (block for block in blocks if block.field == worth.field):
                    for name, table in model.named_parameters():
                        if side_of(name) == side:
                            table[block.offset : block.offset + block.size] = 0.0
            found = []
            for row in range(len(world.held)):
                repeated = users.take(np.full(len(items), row))
                scores = model.score(batch(repeated, encoder.user_fields), batch(items, encoder.item_fields)).tolist()
                top = reference.top(scores, set(world.held.masked[row].tolist()), 3)
                found.append(reference.ndcg(top, set(world.held.relevant[row].tolist()), 3))
        assert worth.metrics["ndcg@3"].value == pytest.approx(np.mean(found)), worth.field


def test_each_ablation_is_compared_with_the_full_model(world):
    ablation = ablation_of(world)
    assert set(ablation.whole) == {f"{name}@{k}" for name in ("recall", "ndcg") for k in (1, 3)}
    for worth in ablation.fields:
        for name, compared in worth.comparison.items():
            assert compared.difference.value == pytest.approx(worth.metrics[name].value - ablation.whole[name].value)
        assert worth.word == _word({worth.comparison[f"{name}@3"].verdict for name in ("recall", "ndcg")})


@pytest.mark.parametrize(
    ("verdicts", "word"),
    [
        ({"higher"}, "hurts"),
        ({"higher", "undecided"}, "hurts"),
        ({"lower", "undecided"}, "helps"),
        ({"lower"}, "helps"),
        ({"undecided"}, "undecided"),
        ({"lower", "higher"}, "mixed"),
    ],
)
def test_a_verdict_requires_an_interval_that_excludes_0(verdicts, word):
    assert _word(verdicts) == word
