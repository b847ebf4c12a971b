"""What a way of learning offers to the training loop."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from recall.models.torch.base import Model


class Learner(Protocol):
    """Improves its model in place, sweep by sweep."""

    @property
    def model(self) -> Model:
        """The model that is learned."""
        ...

    @property
    def note(self) -> str:
        """What does the work, for whoever reads the report of a run."""
        ...

    def sweep(self) -> float:
        """Go once over the data; returns the loss, for each unit of observed weight."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All that the next sweep depends on beside the model's tables."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        ...
