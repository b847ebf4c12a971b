"""Which model of the family is learnt."""

from typing import Literal

from pydantic import Field, model_validator

from recall.config.schema import Section


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
        if self.cosine and self.rank is not None:
            raise ValueError("a cosine is of whole vectors: leave rank out, or set cosine = false")
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
