"""Where the data are, and which interactions train, validate and test."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from recall.config.section import Section


class ColumnSplit(Section):
    """The split of each interaction is named in a column."""

    by: Literal["column"]
    column: str = "split"
    """Column of the interactions that names the split."""
    train: tuple[str, ...] = ("train",)
    """Values of the column that mean training."""
    valid: tuple[str, ...] = ("valid",)
    """Values that mean validation."""
    test: tuple[str, ...] = ("test",)
    """Values that mean test; any value in none of the three lists is an error."""

    @model_validator(mode="after")
    def _parts_are_apart(self) -> "ColumnSplit":
        named = (*self.train, *self.valid, *self.test)
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise ValueError(f"a value means one part of the split, but {twice} are named more than once")
        return self


class LastSplit(Section):
    """The last `test` interactions of each user are tested on, the `valid` before those validate; needs `data.time`."""

    by: Literal["last"]
    test: int = Field(default=1, ge=0)
    """Interactions of each user to test on."""
    valid: int = Field(default=1, ge=0)
    """Interactions of each user, before those, to validate on."""


class TimeSplit(Section):
    """Interactions at or after `test` are tested on, those at or after `valid` validate; a share of all rows or a time."""

    by: Literal["time"]
    test: float = 0.9
    """A number in (0, 1) is a quantile of all times; any other is a time in the column's own unit."""
    valid: float | None = None
    """Read as `test` is, and earlier than it; nothing validates when left out."""


class NoSplit(Section):
    """Everything trains."""

    by: Literal["none"] = "none"


Split = Annotated[ColumnSplit | LastSplit | TimeSplit | NoSplit, Field(discriminator="by")]


class DataConfig(Section):
    """The three tables and the columns that play a part; paths are relative to the data folder."""

    interactions: str = "interactions.parquet"
    """One row for each interaction, `.parquet` or `.csv`."""
    users: str | None = None
    """One row for each user; needed only for user fields that the interactions do not have."""
    items: str | None = None
    """One row for each item; its rows are the catalogue, with items met only in the interactions added."""
    attributes: tuple[str, ...] = ()
    """Columns of the items table that no field reads and that requests may filter by; columns of fields they may anyway."""
    user_id: str = "user_id"
    """Column with the user's id, in the interactions and in the users table."""
    item_id: str = "item_id"
    """Column with the item's id, in the interactions and in the items table."""
    id_in_users: str | None = None
    """What the users table calls its id column, where that is not `user_id`; the same in files of new users."""
    id_in_items: str | None = None
    """What the items table calls its id column, where that is not `item_id`; the same in files of new items."""
    nulls: tuple[str, ...] = ()
    """Texts that mean a missing value in CSV files, such as "NA" or "\\\\N", exactly as written; an empty cell always does."""
    time: str | None = None
    """Time or position; orders each user's interactions. Ties keep the order of the file."""
    weight: str | None = None
    """Positive strength of an interaction; 1 for all when left out."""
    half_life: float | None = Field(default=None, gt=0)
    """A training interaction weighs half for every so many later ones of its user; all weigh alike when left out."""
    label: str | None = None
    """Column of 1 and 0; a row of 0 was shown and not taken. It is no interaction; log loss learns from it, and is judged."""
    available_from: str | None = None
    """Column of the items table with the time from which each item is on offer, in the unit of `time`. An item without training
    interactions is no negative, unless it was on offer before the last of them; needs `time` and `items`."""
    split: Split = NoSplit()
    carve: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the training interactions drawn at random to validate on, when the split itself leaves none."""
    carve_last: int = Field(default=0, ge=0)
    """Last training interactions of each user to validate on, when the split leaves none; needs `time`."""
