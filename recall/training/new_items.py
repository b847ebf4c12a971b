"""Give new items their vectors after training, and level them with trained ones.

An item without training interactions is scored by its features and by the unknown row of the item id field. These rows are
those trained with masked items, or those of the regression in `recall.training.item_regression`. A tenth of the trained items
is scored as if it were new, and the rows are chosen that rank more of the users' items high. The strength of the ridge is
chosen by a regression on the other items.

Features rank a new item among other new items, but its score has less variance than that of a trained item, and the items at
the top of a list are those with a large deviation: without a correction, new items are almost never found. The deviations of
the predicted vectors are therefore amplified, and the unknown row is shifted. The shift is measured with the same tenth, in
the lists of training users without their own items: it is the quantile at which a new item is listed as often as a trained
one, and never negative. The amplification is the best one there among those with a positive shift: with a larger one, an
unknown user, whose scores vary little, would never see a new item. Scores of trained items do not change, up to rounding.

If more than a quarter of a catalogue has no interactions, most of these items are not new. They are then lowered instead,
until they are almost never listed.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recall._arrays import Bool, Float32, Float64, Int64
from recall.config import RunConfig
from recall.data.contexts import build_contexts
from recall.data.dataset import Dataset
from recall.data.split import REMEMBERED
from recall.evaluation.exact_topk import ItemLists, top_rows
from recall.evaluation.metrics import ndcg
from recall.features.csr import FeatureBlock, SparseRows
from recall.features.encoder import FeatureEncoder
from recall.features.vocabulary import UNKNOWN
from recall.models.torch.base import Model
from recall.models.torch.fm import FactorizationMachine
from recall.models.torch.registry import Cosine
from recall.training.item_regression import ItemRegression
from recall.training.masking import Roles, uniform

_LIST_LENGTH = 20  # length of the lists in which places are counted: that of most published figures
_SIMULATED = 0.1  # share of the trained items that are scored as new ones
_USERS = 2000  # lists that are computed; twice as many moved no figure on toys and ml-100k
_OFF_OFFER_PLACES = 0.01  # of those in lists, for the items of a catalogue that is mostly without interactions
_OFF_OFFER_SAMPLE = 50_000  # items without interactions that are scored
_FEWEST_USERS = 30  # users to choose vectors by
_FINEST_SHIFT, _LOWEST_SHIFT = 1e-3, -1e3  # shifts that are tried
# Strengths of the ridge that are tried, until one finds less than the one before. The best were 1 on toys and ml-1m, 1 to 3
# on ml-1m with cosines, and 3 to 10 on a generated shop.
_STRENGTHS = (10.0, 3.0, 1.0, 0.3)
# Factors of the predicted variation that are tried in the same way. A ridge predicts less variation between items than there
# is. On toys, new items that took as many places were found 1.3 times as often at 1.5, and 1.4 times at 2 and 3.
_GAINS = (1.25, 1.5, 1.75, 2.0)
_MOSTLY_NEW = 0.25  # of a catalogue; where more of it has no interactions, most of these items are taken to be off offer


@torch.no_grad()
def level_new_items(
    model: Model, dataset: Dataset, encoder: FeatureEncoder, config: RunConfig, scalable: bool
) -> tuple[str, Float32]:
    """Shift the unknown row of the item id field, so that new items get their places.

    Under a cosine all items have one length; the vectors of new ones are shortened instead.

    Args:
        model: trained; changed in place.
        dataset: training users, their interactions, and the items.
        encoder: of the model.
        config: `train.new_items` is the frequency of new items in lists, relative to trained items.
        scalable: whether item vectors can be scaled: with a popularity factor.

    Returns:
        One line for the report: the change, or why there was no change; and float32 [n_item_features]: the vectors of the items
        with a feature are scaled by 1 plus its number.
    """
    levels = np.zeros(encoder.item_fields.n_features, dtype=np.float32)
    return _level(model, dataset, encoder, config, levels if scalable else None), levels


def _level(model: Model, dataset: Dataset, encoder: FeatureEncoder, config: RunConfig, levels: Float32 | None) -> str:
    """Level new items by the model's weights, or by `levels` under a cosine."""
    block = next(iter(encoder.id_blocks("item", alone=True)), None)
    trains = dataset.offer.candidates
    share = float((~trains).mean())
    if config.train.new_items == 0:
        return "as learnt: train.new_items is 0"
    if block is None:
        return "by their features, as all items: no field has a row for each item id"
    if config.train.objective == "logistic":
        return "as learnt: scores are log-odds, which a shift would falsify"
    rows, row = encoder.encode_items(dataset.items), block.offset + UNKNOWN
    if (rows.take(np.flatnonzero(trains)).indices == row).any():
        return f"as learnt: trained items that field {block.name!r} leaves out share the row of new ones"
    lists = _UserLists.of(model, dataset, encoder, config)
    if share > _MOSTLY_NEW:
        shift, places = _lower(model, encoder, row, rows, trains, lists)
        done = f"lowered by {-shift:.3g}" if shift else "as learnt"
        return (
            f"{done}, to {places:.1%} of the places: {share:.0%} of all items have no interactions, and most of them are taken "
            "to be no longer on offer; leave such items out of the items table, or name data.available_from"
        )
    if len(encoder.id_blocks("item")) == len(encoder.item_blocks):
        return "as learnt: no field distinguishes new items from each other"
    return _raise(model, encoder, block, rows, dataset, lists, config, levels)


@dataclass(frozen=True, slots=True)
class _UserLists:
    """Requests of training users, whose lists are computed.

    Attributes:
        phi: float32 [q, dim], the vector of each user's next request.
        taken: q lists of rows, the items that each user has taken.
        masked: q lists of item rows that cannot be in the answer.
    """

    phi: Float32
    taken: ItemLists
    masked: ItemLists

    @staticmethod
    def of(model: Model, dataset: Dataset, encoder: FeatureEncoder, config: RunConfig) -> "_UserLists":
        """Draw the users."""
        user, item = (dataset.events[name].to_numpy() for name in ("user", "item"))
        training = dataset.training
        last = training[np.diff(user[training], append=-1) != 0]
        if len(last) > _USERS:
            last = np.sort(np.random.default_rng(config.seed).choice(last, _USERS, replace=False))
        contexts = build_contexts(dataset, encoder, last, last + 1)
        features = contexts.features.take(contexts.context)
        drawn = np.zeros(len(dataset.users), dtype=np.bool_)
        drawn[user[last]] = True
        training = training[drawn[user[training]]]
        taken = ItemLists.from_pairs(user[training], item[training], len(dataset.users)).take(user[last])
        masked = taken if config.evaluation.mask == "user" else ItemLists.empty(len(last))
        return _UserLists(model.embed("user", features, encoder.user_fields), taken, masked)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Result of a simulation.

    Attributes:
        level: number to add to the scores of new items, or to multiply them by, so that they have their share of the lists; 0
            or 1 if they have it already.
        ndcg: NDCG of the users' own items with this level; 0 if too few users have such items.
    """

    level: float
    ndcg: float


class _Simulation:
    """Some trained items that are scored as new ones, in lists with all others.

    Attributes:
        others: int64 [n], rows of the catalogue: the other trained items.
        how: new items are levelled: "shift", "scale" or "none".
        possible: whether there are enough items of both kinds.
    """

    def __init__(
        self,
        model: Model,
        encoder: FeatureEncoder,
        rows: SparseRows,
        roles: Roles,
        trained: Int64,
        lists: _UserLists,
        config: RunConfig,
        how: str,
    ) -> None:
        """Choose the items, and compute the lists of the others.

        Args:
            model: trained; its rows for new items may change between simulations.
            encoder: of the model.
            rows: of the catalogue.
            roles: of the item fields.
            trained: int64, rows of the catalogue with training interactions.
            lists: of some users.
            config: of the run.
            how: new items are levelled: "shift", "scale" or "none".
        """
        items = trained[uniform(trained, config.seed, 0) < _SIMULATED]
        self.others = np.setdiff1d(trained, items)
        self.how, self._share = how, config.train.new_items * len(items) / max(len(trained), 1)
        self.possible = len(items) >= 2 and len(self.others) >= _LIST_LENGTH
        if self.possible:
            self._model, self._fields, self._as_new = model, encoder.item_fields, roles.as_new(rows.take(items))
            self._phi, self._masked = lists.phi, lists.masked.among(items)
            old = model.embed("item", rows.take(self.others), self._fields)
            self._best = _top(lists.phi, old, lists.masked.among(self.others))[1]
            found = lists.taken.among(items)
            self._users_of_items = np.flatnonzero(found.lengths)
            self._relevant = found.take(self._users_of_items)

    @property
    def can_judge(self) -> bool:
        """Whether enough users have taken one of the items."""
        return len(self._users_of_items) >= _FEWEST_USERS

    def run(self) -> _Outcome:
        """Score the items by the unchanged model, and level them."""
        new, scales = self._model.embed("item", self._as_new, self._fields), self.how == "scale"
        level = 1.0 if scales else 0.0
        if self.how != "none":
            levels = _entry_levels(self._best, _top(self._phi, new, self._masked)[1], scales)
            level = max(0.0, _level_for(levels, self._share))
            level = min(level, 1.0) if scales else level
        return _Outcome(level, self._ndcg(new, level if np.isfinite(level) else 0.0) if self.can_judge else 0.0)

    def _ndcg(self, new: Float32, level: float) -> float:
        phi = self._phi[self._users_of_items]
        rows, scores = _top(phi, new, ItemLists.empty(len(phi)))
        scores = scores * level if self.how == "scale" else scores + level
        best = self._best[self._users_of_items]
        rows = np.concatenate([np.full(best.shape, -1), rows], axis=1)
        order = np.argsort(-np.concatenate([best, scores], axis=1), axis=1, kind="stable")[:, :_LIST_LENGTH]
        hits = self._relevant.contains(np.take_along_axis(rows, order, axis=1))
        return float(ndcg(hits, self._relevant.lengths, _LIST_LENGTH).mean())


def _raise(
    model: Model,
    encoder: FeatureEncoder,
    block: FeatureBlock,
    rows: SparseRows,
    dataset: Dataset,
    lists: _UserLists,
    config: RunConfig,
    levels: Float32 | None,
) -> str:
    """Choose the vectors of new items, and adjust them to their share of places."""
    trained, how = np.flatnonzero(dataset.offer.candidates), "shift"
    if isinstance(model, Cosine):
        how = "none" if levels is None else "scale"
    roles = Roles.of(encoder.item_fields, rows.take(trained), encoder)
    simulation = _Simulation(model, encoder, rows, roles, trained, lists, config, how)
    if not simulation.possible:
        return "as learnt: there are too few items to measure another level"
    taken = dataset.events["item"].to_numpy()[np.concatenate([dataset.select(REMEMBERED), dataset.training])]
    counts = np.bincount(taken, minlength=len(rows))
    learnt, enough = simulation.run(), simulation.can_judge and (counts[simulation.others] > 0).sum() >= _LIST_LENGTH
    source, level = "as learnt", learnt.level
    if isinstance(model, FactorizationMachine) and enough:
        regression = ItemRegression(model, encoder, block, rows, roles, counts)
        source, level = _regress(model, regression, simulation, trained, learnt)
    row, factor = block.offset + UNKNOWN, config.train.new_items
    often = "as often as" if factor == 1 else f"{factor:g} times as often as"
    if how == "none":
        return f"{source}: under a cosine all items have one length, and new ones compete as equals"
    if levels is not None and how == "scale":
        levels[row] = level - 1
        return f"{source}, scaled by {level:.3g}, to be in lists at most {often} a trained one"
    if not np.isfinite(level):
        return f"{source}: users have taken so many of the items that no list is full without new ones"
    if level == 0:
        return f"{source}: each is in lists at least {often} a trained one"
    model.item_weights[row] += level
    return f"{source}, raised by {level:.3g}, to be in lists {often} a trained one"


def _regress(
    model: FactorizationMachine, regression: ItemRegression, simulation: _Simulation, trained: Int64, learnt: _Outcome
) -> tuple[str, float]:
    """Give new items the vectors of a regression, unless the learnt ones do better.

    Returns:
        Where the vectors come from, and their level.
    """
    tables = [table.clone() for table in (model.item_factors, model.item_weights)]
    start: Tensor | None = None
    strength, gain, best = 0.0, 1.0, _Outcome(0.0, -1.0)
    for one in _STRENGTHS:
        start = regression.fit(simulation.others, one, start=start)
        outcome = simulation.run()
        if outcome.ndcg < best.ndcg:
            break
        strength, best = one, outcome
    for one in _GAINS if simulation.how == "shift" else ():
        start = regression.fit(simulation.others, strength, one, start)
        outcome = simulation.run()
        if outcome.ndcg < best.ndcg or outcome.level == 0:
            break
        gain, best = one, outcome
    # the learnt rows were trained on all items, so the regression is compared with them after it was fitted to all, too
    regression.fit(trained, strength, gain, start)
    found = simulation.run()
    if found.ndcg > learnt.ndcg:
        regression.complete()
        figures = f"NDCG@20 {found.ndcg:.3f}, as learnt {learnt.ndcg:.3f}"
        return f"by ridge regression on their features (variation x{gain:g}, {figures})", best.level
    for table, value in zip((model.item_factors, model.item_weights), tables, strict=True):
        table.copy_(value)
    return "as learnt", learnt.level


def _lower(
    model: Model, encoder: FeatureEncoder, row: int, rows: SparseRows, trains: Bool, lists: _UserLists
) -> tuple[float, float]:
    """Lower items without interactions until they take almost no places.

    Returns:
        The shift, and their share of the places.
    """
    trained, dead = np.flatnonzero(trains), np.flatnonzero(~trains)
    step = max(1, len(dead) // _OFF_OFFER_SAMPLE)
    dead = dead[::step]
    old, without = model.embed("item", rows.take(trained), encoder.item_fields), rows.take(dead)
    best, masked = _top(lists.phi, old, lists.masked.among(trained))[1], lists.masked.among(dead)
    start = float(model.item_weights[row])

    def places(shift: float) -> float:
        model.item_weights[row] = start + shift
        new = model.embed("item", without, encoder.item_fields)
        levels = _entry_levels(best, _top(lists.phi, new, masked)[1])
        # a place that no trained item can fill is theirs regardless of their level
        return float(step * (np.isfinite(levels) & (levels < 0)).sum() / (_LIST_LENGTH * len(levels)))

    low, high = 0.0, 0.0  # as in a bisection: too many places at `high`, few enough at `low`
    while places(low) > _OFF_OFFER_PLACES and low > _LOWEST_SHIFT:
        low, high = min(2 * low, -_FINEST_SHIFT), low
    while high - low > max(_FINEST_SHIFT, 0.05 * abs(low)):
        middle = (low + high) / 2
        low, high = (low, middle) if places(middle) > _OFF_OFFER_PLACES else (middle, high)
    return low, places(low)


def _entry_levels(old: Float64, new: Float64, ratio: bool = False) -> Float64:
    """Return the shifts at which the first, second, ... new item enters each list.

    Args:
        old: float64 [q, places], the highest scores of trained items, from `_top`.
        new: float64 [q, places], those of items scored as new ones.
        ratio: return factors of the scores of new items instead of shifts.

    Returns:
        float64 [q, min(20, m)], rising along each row: the j-th new item enters a list of 20 where it passes the trained item
        on place 21 - j. An infinity where there is no such item.
    """
    below = np.full((len(old), _LIST_LENGTH), -np.inf)  # a list that is not full has room
    below[:, _LIST_LENGTH - old.shape[1] :] = old[:, ::-1]
    below = below[:, : new.shape[1]]
    levels = np.full(new.shape, np.inf)
    there = ~np.isneginf(new)
    found, others = new[there], below[there]
    # a score below zero does not fall where its vector is shortened
    ratios = np.divide(others, found, out=np.full(found.shape, np.inf), where=found > 0)
    needed = ratios if ratio else others - found
    levels[there] = np.where(np.isneginf(others), -np.inf, needed)
    return levels


def _top(phi: Float32, psi: Float32, masked: ItemLists) -> tuple[Int64, Float64]:
    """Return the items of the highest scores, and these scores, falling.

    Args:
        phi: float32 [q, dim].
        psi: float32 [n, dim].
        masked: q lists of rows of `psi` that are left out.

    Returns:
        int64 and float64 [q, min(20, n)]; -1 and -inf where there is no such item.
    """
    rows = top_rows(phi, psi, masked, _LIST_LENGTH)
    scores = np.empty(rows.shape, dtype=np.float64)
    for place in range(rows.shape[1]):
        scores[:, place] = np.einsum("qd,qd->q", phi, psi[rows[:, place]])
    scores[rows < 0] = -np.inf
    return rows, scores


def _level_for(levels: Float64, share: float) -> float:
    """Return the one of `_entry_levels` at which new items take a share of all places."""
    places = round(share * _LIST_LENGTH * len(levels))
    return float(np.sort(levels, axis=None)[min(places, levels.size - 1)])
