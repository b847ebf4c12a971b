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
    """Scale user and item vectors to unit length, so that scores are cosines. Not supported by the square loss."""


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

    Vectors have rank x k + 1 numbers.
    """

    kind: Literal["fwfm"]
    rank: int | None = Field(default=None, ge=1)
    """Maximum rank of the matrix of weights between user and item fields; default: its full rank."""
    tolerance: float = Field(default=1e-6, ge=0, lt=1)
    """Drop singular values of this matrix of at most this share of the largest."""

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

    Vectors have (user fields) x (item fields) x k + 1 numbers.
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
    """Logistic or linear regression: first-order weights; the same list for all."""

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
    """Evaluation on the validation part during training, and early stopping."""

    every: int = Field(default=1, ge=1)
    """Sweeps or epochs between two evaluations on the validation part."""
    patience: int = Field(default=3, ge=1)
    """Number of evaluations without a better metric after which training stops, not counting an opening. The best model is
    used."""
    metric: Literal["ndcg", "recall"] = "ndcg"
    """Metric for early stopping. It is reduced by the lead of popularity over the model on the same requests with unknown user
    ids, if that lead is significant."""
    at: int = Field(default=10, ge=1)
    """Length of the list that the metric is computed on."""
    requests: int = Field(default=10_000, ge=1)
    """Maximum number of validation requests to evaluate during training. If it is not set and an evaluation would take more
    than a tenth of a sweep, fewer requests are used, but at least 1,000. After training, all requests are evaluated."""


class OpeningConfig(Section):
    """Warm-up: square loss over all pairs by ALS, before another objective."""

    sweeps: int = Field(default=6, ge=1)
    """Number of sweeps, each of which solves both sides."""
    steps: int = Field(default=5, ge=1)
    """Conjugate-gradient steps for each side in a sweep."""
    unobserved: float = Field(default=20.0, gt=0)
    """Total weight of all pairs (target 0) for each unit of observed weight (target 1)."""
    popularity: float = Field(default=0.25, ge=0, le=2)
    """That weight is distributed over items by this power of their observed count."""
    activity: float = Field(default=0.5, ge=0, le=2)
    """That weight is distributed over contexts by this power of their observed count."""
    regularisation: float = Field(default=0.001, ge=0)
    """Weight of the L2 regularisation."""
    nu: float = Field(default=1.0, ge=0, le=2)
    """The regularisation of a feature grows with this power of its weight in the data."""
    first_order: float = Field(default=1.0, gt=0)
    """Regularisation of first-order weights, as a multiple of that of the factors."""
    drop: float = Field(default=0.05, ge=0, lt=1)
    """Weight of a second copy of all items whose id, and further values, are masked as unknown or missing; the items
    themselves have weight 1. The copies train the embeddings of unknown values, which new items use."""
    scale: float = Field(default=0.1, gt=0)
    """Standard deviation of the initial length of vectors."""
    start: Literal["random", "singular"] = Field(default="random", exclude_if=partial(operator.eq, "random"))
    """Initialise ids and histories at random, or with the leading singular vectors of the normalised interactions. Other
    features are initialised at random."""


class SquareConfig(OpeningConfig):
    """Square loss over every (context, item) pair, by alternating conjugate gradients."""

    objective: Literal["square"] = "square"
    sweeps: int = Field(default=12, ge=1)
    """Maximum number of sweeps, each of which solves both sides."""
    new_items: float = Field(default=1.0, ge=0, le=1)
    """How often items without training interactions should appear in lists, relative to trained items: 1 means equally often, 0
    disables the adjustment (new items then hardly ever appear). Needs an item field besides the id."""
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
    """FTRL-Proximal for first-order weights, which makes many of them exactly zero."""

    l1: float = Field(default=0.001, ge=0)
    """Weight of the L1 regularisation; larger values make more weights zero."""
    l2: float = Field(default=0.0, ge=0)
    """Weight of the L2 regularisation."""
    learning_rate: float = Field(default=0.1, gt=0)
    """Learning rate (alpha of McMahan et al. 2013; beta is 1)."""


class GradientConfig(Section):
    """Settings of all objectives that are trained by stochastic gradients."""

    epochs: int = Field(default=20, ge=1)
    """Maximum number of passes over the training part."""
    optimiser: Literal["adam", "adagrad", "sgd"] = "adam"
    """Optimizer; updates are row-sparse."""
    learning_rate: float = Field(default=0.01, gt=0)
    """Learning rate."""
    schedule: Literal["linear", "constant"] = "linear"
    """Decrease the learning rate linearly to 0 over all epochs, or keep it constant."""
    first_order: FTRLConfig | None = None
    """Optimizer of the first-order weights; default: that of the factors."""
    regularisation: float = Field(default=0.0, ge=0)
    """Weight of the L2 regularisation of the parameters that a step updates."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the values of a context that are dropped in each batch; the others are scaled up."""
    drop: float = Field(default=0.05, ge=0, lt=1)
    """Share of the items of a batch whose id, and further values, are masked as unknown or missing. They train the embeddings
    of unknown values, which new items use."""
    scale: float = Field(default=1.0, gt=0)
    """Standard deviation of the initial length of vectors."""
    new_items: float = Field(default=1.0, ge=0, le=1)
    """How often items without training interactions should appear in lists, relative to trained items: 1 means equally often, 0
    disables the adjustment (new items then hardly ever appear). Needs an item field besides the id."""
    opening: OpeningConfig | None = None
    """Initialise with sweeps of the square loss; default: random initialisation."""
    stopping: StoppingConfig = StoppingConfig()

    @property
    def opened(self) -> int:
        """Sweeps that the opening counts as: 0 or 1."""
        return int(self.opening is not None)

    @property
    def sweeps(self) -> int:
        """Number of epochs, plus one if there is an opening before them."""
        return self.epochs + self.opened

    @property
    def starting_scale(self) -> float:
        """Standard deviation of an initial vector's length."""
        return self.scale if self.opening is None else self.opening.scale


class SoftmaxConfig(GradientConfig):
    """Softmax of the observed item over the whole catalogue, or over a sample."""

    objective: Literal["softmax"]
    candidates: Literal["all", "sampled", "in-batch"] = "all"
    """Candidates of the softmax: all items, a sample shared by the batch, or the items of the other pairs in the batch."""
    batch: int = Field(default=256, ge=1)
    """Number of contexts in a batch; with candidates "in-batch", number of observed pairs."""
    temperature: float = Field(default=1.0, gt=0)
    """Scores are divided by the temperature; use about 0.1 with model.cosine."""
    activity: float = Field(default=1.0, ge=0, le=2)
    """The weight of a context is this power of its observed weight."""
    samples: int = Field(default=1024, ge=1)
    """Size of the sample with candidates "sampled"."""
    popularity: float = Field(default=0.5, ge=0, le=2)
    """Items are sampled with probability proportional to this power of their observed count."""
    correct: bool = True
    """With candidates "in-batch": subtract the logarithm of an item's share of all pairs from its scores."""
    top: int | None = Field(default=None, ge=1, exclude_if=operator.not_)
    """K of the SL@K loss, for lists of this length: observed items have a higher weight, the further they score above the item
    at position K. Default: equal weights."""
    top_temperature: float = Field(default=1.0, gt=0, exclude_if=partial(operator.eq, 1.0))
    """With `top`: temperature of that difference."""

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
    """Number of observed pairs in a batch."""
    negatives: int = Field(default=4, ge=1)
    """Negatives sampled for a pair. "warp" stops at the first that scores too high; "logistic" with `data.label` samples
    none."""
    popularity: float = Field(default=0.5, ge=0, le=2)
    """Negatives are sampled with probability proportional to this power of their observed count."""
    hard: float = Field(default=0.0, ge=0, le=1)
    """Share of the negatives sampled from the top list of the model at the start of the epoch (hard negatives)."""
    pool: int = Field(default=100, ge=1, le=1000)
    """Length of the top list that hard negatives are sampled from."""
    margin: float = Field(default=1.0, gt=0)
    """Margin by which an observed item must score above a negative, with "warp"."""


class AutoConfig(Section):
    """Compare objectives and settings on a validation part (the race), train the best.

    The final training includes the validation part.
    """

    objective: Literal["auto"]
    race: float | None = Field(default=None, gt=0)
    """Time limit of the race in seconds. Default: 30, or with more than 200,000 interactions about the time of the final
    training."""
    new_items: float = Field(default=1.0, ge=0, le=1)
    """`new_items` of the final training."""
    stopping: StoppingConfig = StoppingConfig()


Method = SquareConfig | SoftmaxConfig | PairwiseConfig
"""An objective and how it is trained."""
Train = Annotated[Method | AutoConfig, Field(discriminator="objective")]
