"""Say at the end of training what each field took and what it is worth.

Worth is what the validation metric loses when the field is left out of the trained model, of user rows or of all items. A
field that is not worth anything there may be left out of the configuration, which the race tries for some fields and
`recall tune` for more. Ids and histories may replace each other in part, so that each alone looks worthless.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain

import numpy as np
import torch

from recall._arrays import Float32, Int64
from recall.config import Method, SquareConfig
from recall.evaluation.cold_start import upper_end
from recall.features.csr import FeatureBlock, FeatureLayout, SparseRows
from recall.features.encoder import FeatureEncoder
from recall.features.masking import without
from recall.models.torch.base import Model, SparseBatch
from recall.training.pairs import ObservedPairs
from recall.training.validation import Validation

_REQUESTS = 1_000  # that are evaluated without each field


@dataclass(frozen=True, slots=True)
class FieldWorth:
    """One field at the end of training.

    Attributes:
        name: of the field.
        loss: of the validation metric without it.
        helps: whether the 95 % interval of the loss is above zero.
        seconds: of the training, estimated from its share of all values and pairs; None where a sweep is not in proportion
            to these.
    """

    name: str
    loss: float
    helps: bool
    seconds: float | None

    def record(self) -> dict[str, str | float | bool | None]:
        """Return the attributes by name."""
        return asdict(self)

    def __str__(self) -> str:
        seconds = "" if self.seconds is None else f", {self.seconds:.1f} s"
        return f"{self.name} {-self.loss:+.4f} without it{'' if self.helps else ' (no help shown)'}{seconds}"


@torch.no_grad()
def field_worths(
    model: Model,
    validation: Validation,
    encoder: FeatureEncoder,
    pairs: ObservedPairs,
    method: Method,
    seconds: float,
    seed: int,
) -> tuple[FieldWorth, ...]:
    """Evaluate a model without each of its fields.

    Args:
        model: trained.
        validation: at most 1,000 of its requests are used.
        encoder: of the model.
        pairs: that it was trained on.
        method: of the training.
        seconds: of the training.
        seed: of the draw of requests.
    """
    some = validation.sampled(_REQUESTS, seed)
    metric = f"ndcg@{some.at[0]}"
    items = _rows(some.items, encoder.item_fields)

    def vectors(rows: SparseRows, side: str) -> Float32:
        of_users = side == "user"
        batch = SparseBatch.of(rows, fields=encoder.user_fields if of_users else encoder.item_fields)
        found: Float32 = (model.user_vectors(batch) if of_users else model.item_vectors(batch)).numpy()
        return found

    phi, psi = vectors(some.rows, "user"), vectors(items, "item")
    whole = some.judge_vectors(phi, psi).values[metric]
    shares = _shares(encoder, pairs)
    worths = []
    for name, field in encoder.schema.fields.items():
        blocks = [block for block in (*encoder.user_blocks, *encoder.item_blocks) if block.field == name]
        if field.side == "user":
            rest = some.judge_vectors(vectors(without(some.rows, blocks), "user"), psi)
        else:
            rest = some.judge_vectors(phi, vectors(without(items, blocks), "item"))
        gains = rest.values[metric] - whole
        took = shares[name] * seconds if isinstance(method, SquareConfig) else None
        worths.append(FieldWorth(name, -float(gains.mean()), upper_end(gains, some.asker) < 0, took))
    return tuple(worths)


def _rows(batch: SparseBatch, fields: FeatureLayout) -> SparseRows:
    return SparseRows(batch.indptr.numpy(), batch.indices.numpy().astype(np.int32), batch.weights.numpy(), fields.n_features)


def _shares(encoder: FeatureEncoder, pairs: ObservedPairs) -> dict[str, float]:
    """Return each field's share of all values and pairs, by name."""
    sides = (encoder.user_blocks, encoder.user_fields, pairs.contexts), (encoder.item_blocks, encoder.item_fields, pairs.items)
    counts = dict.fromkeys(encoder.schema.fields, 0)
    for name, count in chain.from_iterable(zip(*_counts(*side), strict=True) for side in sides):
        counts[name] += int(count)
    total = sum(counts.values()) + len(pairs.observed)
    return {name: count / total for name, count in counts.items()}


def _counts(blocks: Sequence[FeatureBlock], fields: FeatureLayout, rows: SparseRows) -> tuple[list[str], Int64]:
    return [block.field for block in blocks], np.bincount(fields.of(rows.indices), minlength=len(fields))
