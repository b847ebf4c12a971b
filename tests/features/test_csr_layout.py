import numpy as np

from recall.features.csr import FeatureLayout
from recall.features.encoder import FeatureEncoder


def test_a_feature_belongs_to_the_field_of_its_range() -> None:
    fields = FeatureLayout.of_sizes([("a", 2), ("b", 3), ("c", 1)])
    assert (fields.names, fields.offsets.tolist(), fields.n_features, len(fields)) == (("a", "b", "c"), [0, 2, 5], 6, 3)
    assert fields.of(np.arange(6)).tolist() == [0, 0, 1, 1, 1, 2]


def test_the_fields_of_an_encoder_are_its_blocks(tiny_encoder: FeatureEncoder) -> None:
    for fields, blocks in (
        (tiny_encoder.user_fields, tiny_encoder.user_blocks),
        (tiny_encoder.item_fields, tiny_encoder.item_blocks),
    ):
        assert fields.names == tuple(block.name for block in blocks)
        assert fields.n_features == blocks[-1].offset + blocks[-1].size
        for number, block in enumerate(blocks):
            assert set(fields.of(np.arange(block.offset, block.offset + block.size)).tolist()) == {number}
