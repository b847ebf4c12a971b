import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recall.evaluation.cold_start import replace_blocks
from recall.features.csr import FeatureBlock, SparseRows
from recall.features.vocabulary import MISSING, UNKNOWN
from tests.features.rows import as_sets

BLOCKS = (FeatureBlock("a", "a", 0, 4), FeatureBlock("b", "b", 4, 3), FeatureBlock("c", "c", 7, 5))

rows_of_features = st.lists(st.dictionaries(st.integers(0, 11), st.sampled_from([0.5, 1.0, 2.0])), min_size=1, max_size=6)
some_blocks = st.sets(st.sampled_from(BLOCKS)).map(lambda chosen: sorted(chosen, key=lambda block: block.offset))


def sparse(rows):
    pairs = [(row, feature, weight) for row, entries in enumerate(rows) for feature, weight in entries.items()]
    owners, features, weights = (np.array(part) for part in zip(*pairs, strict=True)) if pairs else (np.empty(0, int),) * 3
    return SparseRows.from_coo(owners.astype(np.int64), features.astype(np.int64), weights.astype(float), len(rows), 12)


def inside(feature, blocks):
    return any(block.offset <= feature < block.offset + block.size for block in blocks)


@given(rows_of_features, some_blocks)
def test_the_features_of_blocks_can_be_dropped_kept_or_replaced(rows, blocks):
    dropped = [{feature: weight for feature, weight in row.items() if not inside(feature, blocks)} for row in rows]
    assert as_sets(sparse(rows).without(blocks)) == dropped
    kept = [{feature: weight for feature, weight in row.items() if inside(feature, blocks)} for row in rows]
    assert as_sets(sparse(rows).only(blocks)) == kept
    replaced = sparse(rows).replaced(blocks, sparse(rows[:1]))
    assert as_sets(replaced) == [row | kept[0] for row in dropped]


@given(rows_of_features, some_blocks, st.sampled_from([UNKNOWN, MISSING]))
def test_a_mask_row_replaces_the_features_of_a_block(rows, blocks, value):
    expected = [
        {feature: weight for feature, weight in row.items() if not inside(feature, blocks)}
        | {block.offset + value: 1.0 for block in blocks}
        for row in rows
    ]
    assert as_sets(replace_blocks(sparse(rows), blocks, value)) == expected
