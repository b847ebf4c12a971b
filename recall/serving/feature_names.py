"""Features in the words of the tables that they were learnt from."""

from math import copysign, expm1

from recall.features.blocks import Block, ColumnEncoder
from recall.features.cross import CrossEncoder
from recall.features.csr import SparseRows
from recall.features.encoder import FeatureEncoder
from recall.features.history import HistoryEncoder
from recall.features.layout import Fields
from recall.features.numeric import BucketEncoder, ScaledEncoder
from recall.features.vocabulary import FIRST, MISSING, UNKNOWN
from recall.serving.response import FeatureValue


def user_values(encoder: FeatureEncoder, row: SparseRows) -> list[FeatureValue]:
    """What the entries of one row in the user feature space stand for."""
    return _values(encoder, encoder.user_blocks, encoder.user_fields, row)


def item_values(encoder: FeatureEncoder, row: SparseRows) -> list[FeatureValue]:
    """The same in the item feature space."""
    return _values(encoder, encoder.item_blocks, encoder.item_fields, row)


def _values(encoder: FeatureEncoder, blocks: tuple[Block, ...], fields: Fields, row: SparseRows) -> list[FeatureValue]:
    found = []
    for place, feature, weight in zip(fields.of(row.indices).tolist(), row.indices.tolist(), row.weights.tolist(), strict=True):
        block = blocks[place]
        within = feature - block.offset
        if within in (UNKNOWN, MISSING):
            found.append(FeatureValue(block.name, None, weight, "unknown" if within == UNKNOWN else "missing"))
            continue
        of = encoder.histories[block.field] if block.field in encoder.histories else encoder.columns[block.field]
        found.append(FeatureValue(block.name, _text(of, within, weight), weight, "learnt"))
    return found


def _text(encoder: ColumnEncoder | HistoryEncoder, row: int, weight: float) -> str:
    """One value of a field, by its row there, which is `FIRST` or more."""
    match encoder:
        case ScaledEncoder():
            scaled = encoder.mean + encoder.deviation * weight
            return f"{copysign(expm1(abs(scaled)), scaled) if encoder.log else scaled:.6g}"
        case BucketEncoder():
            return _bucket(encoder, row - FIRST)
        case CrossEncoder():
            length, _, both = encoder.vocabulary.values[row - FIRST].partition(":")
            parts = ((encoder.left, both[: int(length)]), (encoder.right, both[int(length) :]))
            return " x ".join(_bucket(of, int(text)) if isinstance(of, BucketEncoder) else text for of, text in parts)
    if encoder.vocabulary is None:
        return f"bucket {row - FIRST}"  # of a hash, which many values may share
    return str(encoder.vocabulary.values[row - FIRST])


def _bucket(encoder: BucketEncoder, number: int) -> str:
    edges = [float("-inf"), *encoder.edges.tolist(), float("inf")]
    return f"[{edges[number]:g}, {edges[number + 1]:g})"
