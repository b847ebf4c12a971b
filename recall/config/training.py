"""Configuration of losses and of their optimization."""

import operator
from functools import partial
from typing import Annotated, Literal

from pydantic import Field, model_validator

from recall.config.schema import Section, refuse_if


class _Factors(Section):
    k: int = Field(default=64, ge=1, le=1024)
    """Number of factors of one embedding."""
    cosine: bool = False
    """Scale user and item vectors to unit length, so that scores are cosines; not for the square loss."""


class FMConfig(_Factors):
    """The factorization machine (Rendle 2010); vectors of k + 1 numbers."""

    kind: Literal["fm"] = "fm"

    def dim(self, user_fields: int, item_fields: int) -> int:  # noqa: ARG002
        """Return the length of a served vector.

        Args:
            user_fields: number of user fields.
            item_fields: number of item fields.
        """
        return self.k + 1


class FwFMConfig(_Factors):
    """Field-weighted factorization machine (Pan et al. 2018).

    Vectors have rank k + 1 numbers.
    """

    kind: Literal["fwfm"]
    rank: int | None = Field(default=None, ge=1)
    """Keep at most so many directions of the weights between user and item fields; all that are there when left out."""
    tolerance: float = Field(default=1e-6, ge=0, lt=1)
    """Drop directions whose singular value is at most this share of the largest."""

    @model_validator(mode="after")
    def _a_cosine_is_whole(self) -> "FwFMConfig":
        fault = self.cosine and self.rank is not None
        refuse_if((fault, "a cosine is of whole vectors: leave rank out, or set cosine = false"))
        return self

    def dim(self, user_fields: int, item_fields: int) -> int:
        """Return the maximum length of a served vector.

        Args:
            user_fields: number of user fields.
            item_fields: number of item fields.
        """
        rank = item_fields if self.cosine else min(user_fields, item_fields, self.rank or item_fields)
        return rank * self.k + 1


class FFMConfig(_Factors):
    """Field-aware factorization machine (Juan et al. 2016).

    Vectors have (user fields) (item fields) k + 1 numbers.
    """

    kind: Literal["ffm"]

    def dim(self, user_fields: int, item_fields: int) -> int:
        """Return the length of a served vector.

        Args:
            user_fields: number of user fields.
            item_fields: number of item fields.
        """
        return user_fields * item_fields * self.k + 1


class LRConfig(Section):
    """Logistic or linear regression: first-order weights only; all users get one list."""

    kind: Literal["lr"]

    @property
    def k(self) -> int:
        """No factors."""
        return 0

    @property
    def cosine(self) -> bool:
        """The cosine of two numbers is their sign, which ranks nothing."""
        return False

    def dim(self, user_fields: int, item_fields: int) -> int:  # noqa: ARG002
        """Return the length of a served vector.

        Args:
            user_fields: number of user fields.
            item_fields: number of item fields.
        """
        return 1


ModelConfig = FMConfig | FwFMConfig | FFMConfig | LRConfig


class StoppingConfig(Section):
    """When to look at the validation part, and when to stop."""

    every: int = Field(default=1, ge=1)
    """Sweeps or epochs between two evaluations on validation."""
    patience: int = Field(default=3, ge=1)
    """Evaluations without a better figure before training stops, not counting an opening; the best model is kept."""
    metric: Literal["ndcg", "recall"] = "ndcg"
    """The figure that must get better, less popularity's lead over it with the same requests asked as by unknown users, where
    that lead is beyond chance."""
    at: int = Field(default=10, ge=1)
    """Length of the list that the figure speaks of."""
    requests: int = Field(default=10_000, ge=1)
    """At most this many validation requests are evaluated, drawn once. Where it is left out, those during training are fewer,
but at least 1,000, if they would take more than a tenth of a sweep; the figures at the end are of all."""


class OpeningConfig(Section):
    """Warm-up: square loss over all pairs by ALS, before another objective."""

    sweeps: int = Field(default=6, ge=1)
    """Times that both sides are solved."""
    steps: int = Field(default=5, ge=1)
    """Conjugate-gradient steps on each side in each sweep."""
    unobserved: float = Field(default=20.0, gt=0)
    """Weight of all pairs together, whose score is drawn to 0, for each unit of observed weight, drawn to 1."""
    popularity: float = Field(default=0.25, ge=0, le=2)
    """Items share that weight as this power of their observed count."""
    activity: float = Field(default=0.5, ge=0, le=2)
    """Contexts share that weight as this power of their observed count."""
    regularisation: float = Field(default=0.001, ge=0)
    """Weight of the squared size of the parameters, beside what each of them sees of the data."""
    nu: float = Field(default=1.0, ge=0, le=2)
    """Regularisation of a feature grows with this power of how much data it sees."""
    first_order: float = Field(default=1.0, gt=0)
    """Regularisation of first-order weights, as a multiple of that of factors."""
    drop: float = Field(default=0.05, ge=0, lt=1)
    """Weight of all items trained once more as new ones, beside the weight 1 of each as it is: with the id unknown, and with
    further values unknown or missing. It trains the rows that new items are made of."""
    scale: float = Field(default=0.1, gt=0)
    """Standard deviation of a starting vector's length."""
    start: Literal["random", "singular"] = Field(default="random", exclude_if=partial(operator.eq, "random"))
    """Where ids and histories begin: at random, or as the leading singular vectors of the normalised interactions. Other
    features begin at random."""


class SquareConfig(OpeningConfig):
    """Square loss over every (context, item) pair, by alternating conjugate gradients."""

    objective: Literal["square"] = "square"
    sweeps: int = Field(default=12, ge=1)
    """Times that both sides are solved, at most."""
    new_items: float = Field(default=1.0, ge=0, le=1)
    """How often an item without training interactions is in a list, relative to a trained one: 1 is as often, 0 leaves new
    items at the level that was learnt, which is next to never. It needs an item field beside the id."""
    stopping: StoppingConfig = StoppingConfig()

    @property
    def starting_scale(self) -> float:
        """Standard deviation of a starting vector's length."""
        return self.scale

    @property
    def opened(self) -> int:
        """Sweeps of an opening, which other objectives may have."""
        return 0


class FTRLConfig(Section):
    """FTRL-Proximal for the first-order weights, which makes many exactly zero."""

    l1: float = Field(default=0.001, ge=0)
    """Weight of the sum of absolute values; larger makes more weights zero."""
    l2: float = Field(default=0.0, ge=0)
    """Weight of the squared size."""
    learning_rate: float = Field(default=0.1, gt=0)
    """Alpha of McMahan et al. 2013; beta is 1."""


class GradientConfig(Section):
    """Settings of all learning by stochastic gradients."""

    epochs: int = Field(default=20, ge=1)
    """Passes over the training part, at most."""
    optimiser: Literal["adam", "adagrad", "sgd"] = "adam"
    """Rule that turns gradients into steps of the rows that a batch uses."""
    learning_rate: float = Field(default=0.01, gt=0)
    """Size of a step."""
    schedule: Literal["linear", "constant"] = "linear"
    """Let the learning rate fall to 0 in a straight line over all epochs, or leave it."""
    first_order: FTRLConfig | None = None
    """A rule of their own for the first-order weights; that of the factors when left out."""
    regularisation: float = Field(default=0.0, ge=0)
    """Weight of the squared size of the parameters that a step touches."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of a context's values left out of each batch, the others weighing more."""
    drop: float = Field(default=0.05, ge=0, lt=1)
    """Share of a batch's items that train as new ones: with the id unknown, and with further values unknown or missing. It
    trains the rows that new items are made of."""
    scale: float = Field(default=1.0, gt=0)
    """Standard deviation of a starting vector's length."""
    new_items: float = Field(default=1.0, ge=0, le=1)
    """How often an item without training interactions is in a list, relative to a trained one: 1 is as often, 0 leaves new
    items at the level that was learnt, which is next to never. It needs an item field beside the id."""
    opening: OpeningConfig | None = None
    """Sweeps of the square loss to begin with; from chance when left out."""
    stopping: StoppingConfig = StoppingConfig()

    @property
    def opened(self) -> int:
        """Sweeps that the opening counts as: 0 or 1."""
        return int(self.opening is not None)

    @property
    def sweeps(self) -> int:
        """Epochs, and an opening, which counts as one, before them."""
        return self.epochs + self.opened

    @property
    def starting_scale(self) -> float:
        """Standard deviation of an initial vector's length."""
        return self.scale if self.opening is None else self.opening.scale


class SoftmaxConfig(GradientConfig):
    """Softmax: an observed item against the whole catalogue, or a part of it."""

    objective: Literal["softmax"]
    candidates: Literal["all", "sampled", "in-batch"] = "all"
    """Against every item, against draws that a batch shares, or against the items of the batch's other pairs."""
    batch: int = Field(default=256, ge=1)
    """Contexts in one step; observed pairs in one step with candidates "in-batch"."""
    temperature: float = Field(default=1.0, gt=0)
    """Scores are divided by it; about 0.1 with model.cosine."""
    activity: float = Field(default=1.0, ge=0, le=2)
    """A context weighs as this power of its observed weight."""
    samples: int = Field(default=1024, ge=1)
    """Draws in one step with candidates "sampled"."""
    popularity: float = Field(default=0.5, ge=0, le=2)
    """Samples are drawn with this power of the item's observed count."""
    correct: bool = True
    """With candidates "in-batch": take the logarithm of an item's share of all pairs from its scores."""
    top: int | None = Field(default=None, ge=1, exclude_if=operator.not_)
    """SL@K with this K, for lists of that length: observed items weigh more, the further they score above the item in place K.
    All weigh alike when left out."""
    top_temperature: float = Field(default=1.0, gt=0, exclude_if=partial(operator.eq, 1.0))
    """With `top`: that difference is divided by it."""

    @model_validator(mode="after")
    def _a_place_is_one_in_the_whole_catalogue(self) -> "SoftmaxConfig":
        refuse_if(
            (
                self.top is not None and self.candidates != "all",
                'top needs the scores of all items: leave candidates = "all", or leave top out',
            ),
            (
                self.top is None and self.top_temperature != 1,
                "top_temperature does nothing without top: set top, such as top = 20",
            ),
        )
        return self


class PairwiseConfig(GradientConfig):
    """An observed item against sampled negatives: BPR, WARP, or log loss.

    Log loss gives probabilities.
    """

    objective: Literal["bpr", "warp", "logistic"]
    batch: int = Field(default=4096, ge=1)
    """Observed pairs in one step."""
    negatives: int = Field(default=4, ge=1)
    """Negatives drawn for a pair; "warp" stops at the first that scores too high; with `data.label` "logistic" draws none."""
    popularity: float = Field(default=0.5, ge=0, le=2)
    """Negatives are drawn with this power of the item's observed count."""
    hard: float = Field(default=0.0, ge=0, le=1)
    """Share of the negatives drawn from the items that the model, as it was at the start of the epoch, puts on top."""
    pool: int = Field(default=100, ge=1, le=1000)
    """Length of the list that hard negatives are drawn from."""
    margin: float = Field(default=1.0, gt=0)
    """With "warp": how far an observed item must score above a negative."""


class AutoConfig(Section):
    """A short race of known recipes on a validation part.

    The winner is trained on the validation part, too.
    """

    objective: Literal["auto"]
    race: float | None = Field(default=None, gt=0)
    """Seconds that the race may take; when left out 30, or on more than 200,000 interactions about the time of the final
    training."""
    new_items: float = Field(default=1.0, ge=0, le=1)
    """As with any other objective, for the winner."""
    stopping: StoppingConfig = StoppingConfig()


Method = SquareConfig | SoftmaxConfig | PairwiseConfig
"""An objective and how it is trained."""
Train = Annotated[Method | AutoConfig, Field(discriminator="objective")]
