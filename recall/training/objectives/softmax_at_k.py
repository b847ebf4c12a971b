"""SL@K: observed items weigh more, the surer they are of a place among the best K.

The loss of Yang et al. (KDD 2025). For every context c with observed items S_c of weights s, and all items j of the catalogue:

    L_c = sum_{i in S_c} s_ci w_ci (log sum_j exp(y_cj / t) - y_ci / t)
    w_ci = sigmoid((y_ci - beta_c) / t_w),      beta_c = the K-th largest y_cj

It bounds -log DCG@K from above, where the softmax bounds that of whole lists. beta is exact, since all scores of the catalogue
are at hand; the paper estimates it from samples. w is a constant in the gradient: through it, the loss would fall as an
observed item drops out of the list.
"""

from torch import Tensor
from typing_extensions import override

from recall.training.objectives.softmax import FullSoftmax
from recall.training.pairs import ObservedPairs


class SoftmaxAtK(FullSoftmax):
    """Softmax over the whole catalogue for lists of K items."""

    def __init__(self, pairs: ObservedPairs, temperature: float, activity: float, top: int, top_temperature: float) -> None:
        """Prepare the loss of some pairs.

        Args:
            pairs: the observed pairs.
            temperature: t.
            activity: a context weighs as this power of its observed weight.
            top: K; the whole catalogue where it is smaller.
            top_temperature: t_w.
        """
        super().__init__(pairs, temperature, activity)
        self._top, self._slope = top, temperature / top_temperature

    @override
    def _weigh(self, scores: Tensor, bar: Tensor, weights: Tensor) -> Tensor:
        return weights * (self._slope * (scores - bar)).sigmoid()
