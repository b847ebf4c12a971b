"""How gradients become steps: which rule moves which table, how boldly, and how that falls over a run."""

from dataclasses import dataclass

from torch import Tensor

from recall.config import PairwiseConfig, SoftmaxConfig
from recall.models.torch.base import side_of
from recall.training.optimizers.adagrad import Adagrad
from recall.training.optimizers.adam import Adam
from recall.training.optimizers.base import RowOptimiser
from recall.training.optimizers.ftrl import FTRL
from recall.training.optimizers.sgd import SGD

_FIRST_ORDER = ("user_weights", "item_weights")
_RULES: dict[str, type[Adagrad] | type[Adam] | type[SGD]] = {"adagrad": Adagrad, "adam": Adam, "sgd": SGD}


@dataclass(frozen=True, slots=True)
class StepRule:
    """The rule of one run."""

    config: SoftmaxConfig | PairwiseConfig

    @property
    def batch(self) -> int:
        """Contexts or pairs in one step."""
        return self.config.batch

    def penalty(self, name: str) -> float:
        """Weight of the squared size of a parameter's rows; FTRL has its own, and what all features share has none."""
        own_rule = self.config.first_order is not None and name in _FIRST_ORDER
        return 0.0 if own_rule or side_of(name) is None else self.config.regularisation

    def optimiser(self, name: str, table: Tensor) -> RowOptimiser:
        """The rule for a parameter of this name over its rows [n, ...]."""
        first_order = self.config.first_order
        if first_order is not None and name in _FIRST_ORDER:
            return FTRL(table, first_order.l1, first_order.l2, first_order.learning_rate)
        return _RULES[self.config.optimiser](table)

    def rate(self, epoch: float) -> float:
        """The learning rate after a number of passes, which need not be whole."""
        if self.config.schedule == "constant":
            return self.config.learning_rate
        return self.config.learning_rate * (1 - epoch / self.config.epochs)
