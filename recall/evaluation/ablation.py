"""What each field is worth to the trained model: the same requests, ranked without it.

Nothing is trained anew, so this is what the model makes of the field, and not what another model could do without it.
"""

import time
from typing import Literal

from pydantic import BaseModel, ConfigDict

from recall._arrays import Float32
from recall.bundle.reader import Bundle
from recall.config import EvaluationConfig
from recall.config.schema import Side
from recall.evaluation.bootstrap import Comparison, Estimate, Judgements, compare, estimate
from recall.evaluation.offline import OfflineReplay
from recall.features.masking import without

_NAMES = ("recall", "ndcg")


class FieldWorth(BaseModel):
    """The model without one field."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    side: Side
    metrics: dict[str, Estimate]
    comparison: dict[str, Comparison]
    """Without the field against the whole model, over the same requests."""
    word: Literal["helps", "hurts", "mixed", "undecided"]
    """'hurts' when at the longest length an interval of recall or ndcg without the field lies above the whole model's and
    none below; 'helps' the other way round; 'undecided' when the data cannot tell."""


class Ablation(BaseModel):
    """recall and ndcg, as `name@k`, of exact lists straight from the vectors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: int
    whole: dict[str, Estimate]
    fields: tuple[FieldWorth, ...]
    seconds: float


def ablate(trial: OfflineReplay, bundle: Bundle, config: EvaluationConfig, seed: int) -> Ablation:
    """Leave out every field in turn: a user field of the requests, an item field of the whole catalogue.

    Args:
        trial: the requests.
        bundle: the one that the trial is of.
        config: the lengths to judge at, and how many resamples.
        seed: of the resamples.
    """
    started = time.monotonic()
    at, encoder, tables = sorted(set(config.at)), bundle.encoder, bundle.tables
    names = [f"{name}@{k}" for name in _NAMES for k in at]
    item_rows = encoder.encode_items(bundle.items())

    def judged(user_vectors: Float32 | None = None, item_vectors: Float32 | None = None) -> Judgements:
        values = trial.judge(trial.lists(at[-1], user_vectors, item_vectors), at)
        return Judgements(values.user, {name: values.values[name] for name in names})

    whole, worth = judged(), []
    for name, field in encoder.schema.fields.items():
        blocks = [block for block in (*encoder.user_blocks, *encoder.item_blocks) if block.field == name]
        if field.side == "user":
            rest = judged(user_vectors=tables.user_vectors(without(trial.users, blocks)))
        else:
            rest = judged(item_vectors=tables.item_vectors(without(item_rows, blocks)))
        comparison = compare(rest, whole, config.intervals, seed)
        worth.append(
            FieldWorth(
                field=name,
                side=field.side,
                metrics=estimate(rest, config.intervals, seed),
                comparison=comparison,
                word=_word({comparison[f"{one}@{at[-1]}"].verdict for one in _NAMES}),
            )
        )
    return Ablation(
        requests=len(trial),
        whole=estimate(whole, config.intervals, seed),
        fields=tuple(worth),
        seconds=time.monotonic() - started,
    )


def _word(verdicts: set[Literal["higher", "lower", "undecided"]]) -> Literal["helps", "hurts", "mixed", "undecided"]:
    told = verdicts - {"undecided"}
    if len(told) == 2:
        return "mixed"
    return "undecided" if not told else "hurts" if told == {"higher"} else "helps"
