from dataclasses import replace

import numpy as np
import polars as pl

from recall.features.encoder import FeatureEncoder
from recall.features.vocabulary import FIRST
from recall.training.pairs import ObservedPairs


def with_dead_items(dataset, more):
    """The same data with `more` further items without interactions and the features of the first ones."""
    copies = dataset.items[:more].with_columns(pl.col(dataset.schema.item_id) + "-dead")
    return replace(dataset, items=pl.concat([dataset.items, copies]))


def test_an_unavailable_item_is_not_a_candidate(tiny_dataset):
    crowded = with_dead_items(tiny_dataset, len(tiny_dataset.items))
    encoder, other = FeatureEncoder.fit(tiny_dataset), FeatureEncoder.fit(crowded)
    plain, among = (ObservedPairs.of(data, one, data.training) for data, one in ((tiny_dataset, encoder), (crowded, other)))
    assert other.n_item_features == encoder.n_item_features
    assert np.array_equal(among.items.indices, plain.items.indices)
    assert np.array_equal(among.items.weights, plain.items.weights)
    assert np.array_equal(among.observed, plain.observed)
    assert len(plain.items) == int(tiny_dataset.offer.interacted.sum())


def test_an_available_item_is_a_candidate_with_its_id(tiny_dataset):
    crowded = with_dead_items(tiny_dataset, 3)
    available = np.zeros(len(crowded.items), dtype=bool)
    available[-2] = True
    crowded = replace(crowded, available=available)
    encoder = FeatureEncoder.fit(crowded)
    pairs = ObservedPairs.of(crowded, encoder, crowded.training)
    met = int(crowded.offer.interacted.sum())
    assert len(pairs.items) == met + 1
    assert np.bincount(pairs.observed, minlength=met + 1)[-1] == 0
    block = next(block for block in encoder.item_blocks if encoder.columns[block.field].columns == (crowded.schema.item_id,))
    rows = encoder.encode_items(crowded.items[-3:])
    ids = rows.indices[(rows.indices >= block.offset) & (rows.indices < block.offset + block.size)] - block.offset
    assert [one >= FIRST for one in ids] == [False, True, False]
