"""Configuration of the data: tables, columns, and their parts."""

from collections import Counter
from collections.abc import Iterable
from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, FiniteFloat, PositiveFloat, field_validator, model_validator

from recall.config.schema import Section, refuse_if


def _repeated(names: Iterable[str]) -> list[str]:
    """Return the names that occur more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


class ColumnSplit(Section):
    """A column names the part of each interaction: training, validation or test."""

    by: Literal["column"]
    column: str = "split"
    """Column of the interactions that names the part."""
    train: tuple[str, ...] = ("train",)
    """Values of the training part."""
    valid: tuple[str, ...] = ("valid",)
    """Values of the validation part."""
    test: tuple[str, ...] = ("test",)
    """Values of the test part. A value in none of the three lists is an error."""

    @model_validator(mode="after")
    def _parts_are_apart(self) -> "ColumnSplit":
        twice = _repeated((*self.train, *self.valid, *self.test))
        refuse_if((twice, f"a value means one part of the split, but {twice} are named more than once"))
        return self


class LastSplit(Section):
    """Hold out the last interactions of each user.

    Requires `data.time`.
    """

    by: Literal["last"]
    test: int = Field(default=1, ge=0)
    """Number of last interactions of each user in the test part."""
    valid: int = Field(default=1, ge=0)
    """Number of interactions before those in the validation part."""


class TimeSplit(Section):
    """Test on interactions at or after `test`, validate on those at or after `valid`."""

    by: Literal["time"]
    test: float = 0.9
    """A number in (0, 1) is a quantile of all times. Any other number is a time in the unit of the column."""
    valid: float | None = None
    """As `test`, and earlier. Without it there is no validation part."""


class HashSplit(Section):
    """Shares drawn by a hash of id and seed: new rows do not move known ids."""

    test: float = Field(default=0.1, ge=0, lt=1)
    """Share of the test part."""
    valid: float = Field(default=0.1, ge=0, lt=1)
    """Share of the validation part; 0 for none."""

    @model_validator(mode="after")
    def _some_train(self) -> "HashSplit":
        share = self.test + self.valid
        refuse_if((share >= 1, f"test and valid must leave a share to train on, got {self.test} + {self.valid}"))
        return self


class UsersSplit(HashSplit):
    """Hold out all interactions of a share of the users, to evaluate for new users."""

    by: Literal["users"]
    given: float = Field(default=0.5, ge=0, lt=1)
    """With `data.time`: share of the oldest interactions of a held-out user that are sent as history and, with
    `evaluation.mask`, excluded from the answer. The later interactions, at least one, are the relevant items. Without
    `data.time` all interactions are relevant items."""


class ItemsSplit(HashSplit):
    """Hold out all interactions of a share of the items, which stay in the catalogue."""

    by: Literal["items"]


class RandomSplit(HashSplit):
    """Hold out a share of the (user, item) pairs, for a log without times.

    All rows of a pair are in one part.
    """

    by: Literal["random"]


class NoSplit(Section):
    """No split: all interactions are in the training part."""

    by: Literal["none"] = "none"


Split = Annotated[
    ColumnSplit | LastSplit | TimeSplit | UsersSplit | ItemsSplit | RandomSplit | NoSplit, Field(discriminator="by")
]


class OutcomeConfig(Section):
    """A column with the result of an interaction, such as a rating, and a threshold."""

    column: str
    """Numeric column of the interactions."""
    at_least: float = Field(allow_inf_nan=False)
    """Rows with this value or a higher one count as interactions."""
    below: Literal["left out", "not taken"] = "left out"
    """Drop rows below the threshold, or read them as negatives (shown and not taken, like label 0)."""
    missing: Literal["error", "taken", "left out", "not taken"] = "error"
    """How to read rows without a value."""


class EventsConfig(Section):
    """A column of event types, such as view, cart or purchase.

    A type in none of the three lists is an error.
    """

    column: str
    """Column of the interactions with the event types."""
    weights: dict[str, Annotated[PositiveFloat, Field(allow_inf_nan=False)]]
    """Weight of each event type; multiplied by `data.weight`."""
    left_out: tuple[str, ...] = ()
    """Event types whose rows are dropped."""
    not_taken: tuple[str, ...] = ()
    """Event types whose rows are negatives (shown and not taken, like label 0)."""
    missing: Literal["error", "taken", "left out", "not taken"] = "error"
    """How to read rows without an event type; with "taken" they have weight 1."""

    @model_validator(mode="after")
    def _names_are_apart(self) -> "EventsConfig":
        twice = _repeated((*self.weights, *self.left_out, *self.not_taken))
        refuse_if(
            (not self.weights and self.missing != "taken", 'weights must name at least one event, unless missing = "taken"'),
            (twice, f"an event has one meaning, but {twice} are named more than once"),
        )
        return self


class FileFormat(Section):
    """Format of a table that is not Parquet or CSV in UTF-8 with commas and a header."""

    separator: str | None = Field(default=None, min_length=1)
    """Separator of the columns of a text file, such as ";" or "::". Default: a tab for `.tsv`, a comma otherwise.
    Two blanks mean two or more, as between aligned columns."""
    quote: str = Field(default='"', max_length=1)
    """Character around cells that contain separators; empty if quotes are ordinary characters."""
    rules: bool = False
    """Whether to ignore lines of dashes, and bars at both ends of lines, as in tables that are drawn in text."""
    backslashes: bool = False
    """Whether quotes inside quoted cells are escaped by a backslash, as in MySQL and Spark, instead of doubled."""
    encoding: str = "utf-8"
    """Encoding of a text file, by its Python name."""
    header: tuple[str, ...] | None = None
    """Column names of a text file without a header row."""
    skip: int = Field(default=0, ge=0)
    """Number of lines to skip above the header of a text file; with `header`, above the first row."""
    strip: bool = False
    """Whether to remove blanks around the names and cells of a text file."""
    ragged: bool = False
    """Whether rows of a text file may have more cells than the header; further cells are ignored."""
    totals: tuple[str, ...] = ()
    """Ignore rows whose first cell is one of these texts, such as "Total"."""
    explode: str | None = None
    """Column of lists, such as the items of an order, of which each element becomes a row. Empty lists give no row."""
    explode_by: str | None = Field(default=None, min_length=1)
    """Separator of the elements of `explode`, if it is a text column, such as ","."""
    carry: dict[str, str] = Field(default={})
    """Columns whose empty cells take the value of the row above, each with a column that must not change meanwhile (empty for
    none). For exports that write the customer only on the first line of an order."""
    unnest: bool = False
    """Whether members of nested objects become columns, such as `user.id`."""
    missing: dict[str, tuple[str, ...]] = Field(default={})
    """Values that mean a missing value, by column, such as the user id "0" of all users without a login."""
    spelling: dict[str, Literal["upper", "lower", "digits"] | int] = Field(default={})
    """How ids become those of the other tables, without blanks around: in capitals, in small letters, as digits only (without
    zeros in front), or with zeros in front up to this many characters."""
    numbers: dict[str, Literal[".", ","]] = Field(default={})
    """Decimal mark of columns with numbers such as "1.234,50 €". Grouping marks, blanks and currencies are ignored."""
    times: dict[str, str] = Field(default={})
    """Format of columns with times that are neither numbers nor ISO 8601, such as "%d.%m.%Y %H:%M", or "%Y%m%d%H"."""
    clocks: dict[str, str] = Field(default={})
    """Column with the time of day for a column of `times` with the date. The format in `times` covers both, separated by a
    blank."""
    booleans: dict[str, tuple[str, str]] = Field(default={})
    """Texts for true and false, by column, in upper or lower case, such as ["yes", "no"]."""
    durations: dict[str, Literal["m:s", "h:m"]] = Field(default={})
    """Columns with durations such as 1 h 30 min or PT1H30M, which are converted to seconds, and the meaning of 3:45 in them."""
    units: dict[str, tuple[str, ...]] = Field(default={})
    """Units after numbers, which are ignored, by column, such as ["kg"] or ["star", "stars"]."""
    dates: dict[str, tuple[str, ...]] = Field(default={})
    """Times composed of the columns of year, month and day, and optionally hour, minute and second, in this order."""
    flags: dict[str, tuple[str, ...]] = Field(default={})
    """Columns composed of boolean or count columns: the name of the last column that is true or above 0 in a row, if any."""
    years: tuple[str, ...] = ()
    """Columns with a year within a text, such as "[2007]", "c1999" or "Q3 2019", which is kept; text without is missing."""
    lists: tuple[str, ...] = ()
    """Columns with lists in the notation of a programming language, such as "['a', 'b']"; of objects, the names are used."""

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, value: str) -> str:
        try:
            "".encode(value)
        except (LookupError, ValueError):
            raise ValueError(f"{value!r} is not an encoding of text; such as utf-8, cp1252, utf-16 or shift_jis") from None
        return value

    @model_validator(mode="after")
    def _keys_agree(self) -> "FileFormat":
        dateless, numberless = sorted(set(self.clocks) - set(self.times)), sorted(set(self.units) - set(self.numbers))
        alike = sorted(name for name, (yes, no) in self.booleans.items() if yes.lower() == no.lower())
        twice = _repeated(self.converted)
        refuse_if(
            (
                not self.quote.isascii() or self.quote == self.separator,
                f"quote must be one ASCII character other than the separator, got {self.quote!r}",
            ),
            ({"\n", "\r"} & set(self.separator or ""), "separator must not hold the end of a line"),
            (
                self.header == () or _repeated(self.header or ()),
                f"header must name each column once, got {list(self.header or ())}",
            ),
            (dateless, f"clocks needs the format of the dates in times, which lacks {dateless}"),
            (numberless, f"units needs the decimal mark of the numbers before them in numbers, which lacks {numberless}"),
            (self.explode_by is not None and self.explode is None, "explode_by needs explode, the column that it divides"),
            (
                any(not 3 <= len(parts) <= 6 for parts in self.dates.values()),
                "dates needs columns of year, month and day, and up to three more",
            ),
            *(
                (
                    "%" not in pattern or "%f" in pattern.replace(".%f", ""),
                    f"times.{name} must be a format such as '%d.%m.%Y %H:%M:%S.%f', got {pattern!r}",
                )
                for name, pattern in self.times.items()
            ),
            (alike, f"booleans needs two texts for true and false, but those of {alike} are alike"),
            (twice, f"a column has one meaning, but {twice} are named more than once"),
        )
        return self

    @property
    def converted(self) -> tuple[str, ...]:
        """Columns whose text is converted."""
        return (*self.numbers, *self.times, *self.clocks.values(), *self.booleans, *self.durations, *self.years, *self.lists)

    @property
    def joined(self) -> tuple[str, ...]:
        """Columns that others are made of."""
        return tuple(name for names in (*self.flags.values(), *self.dates.values()) for name in names)


def _as_bound(value: object) -> object:
    """Turn a date of TOML into text, which a manifest can hold."""
    return value.isoformat() if isinstance(value, date | datetime) else value


Bound = Annotated[FiniteFloat | str, BeforeValidator(_as_bound)]


class DataConfig(Section):
    """The three tables and their columns; paths are relative to the data folder."""

    interactions: str = "interactions.parquet"
    """File with one row for each interaction: Parquet, CSV or other text, JSON lines; a folder, or a pattern such as
    "sales_*.csv"."""
    users: str | None = None
    """File with one row for each user; needed only for user fields that are not in the interactions."""
    items: str | None = None
    """File with one row for each item. The catalogue contains these items and those that occur only in the interactions."""
    formats: dict[Literal["interactions", "users", "items"], FileFormat] = Field(default={})
    attributes: tuple[str, ...] = ()
    """Columns of the items table that requests can filter by and show, although no field reads them."""
    user_attributes: tuple[str, ...] = ()
    """Columns of the users table that are stored although no field reads them, such as a name to search users by."""
    user_id: str = "user_id"
    """Column with the user's id, in the interactions and in the users table."""
    item_id: str = "item_id"
    """Column with the item's id, in the interactions and in the items table."""
    id_in_users: str | None = None
    """Name of the id column in the users table and in files of new users, if it is not `user_id`."""
    id_in_items: str | None = None
    """Name of the id column in the items table and in files of new items, if it is not `item_id`."""
    nulls: tuple[str, ...] = ()
    """Texts that mean a missing value in CSV files, such as "NA" or "\\\\N". An empty cell is always missing."""
    missing_ids: Literal["error", "left out"] = "error"
    """Whether rows without an id, such as purchases of unknown customers, are an error or dropped."""
    missing_times: Literal["error", "left out"] = "error"
    """Whether rows without a time are an error or dropped."""
    repeated_ids: Literal["error", "first", "last"] = "error"
    """Whether several rows of one user or item in its table are an error, or which of them is used."""
    text: tuple[str, ...] = ()
    """Columns of any table, including ids, whose values are kept exactly as written, such as product codes. Otherwise a text
    column in which every value is a number, boolean, date or time gets this type, so that 1.50 becomes 1.5."""
    user_columns: tuple[str, ...] = ()
    """Columns of the interactions that describe the user. They are read as columns of the users table: for each user the most
    frequent value (of equally frequent values the last)."""
    item_columns: tuple[str, ...] = ()
    """Columns of the interactions that describe the item, such as its title. They are read as columns of the items table: for
    each item the most frequent value (of equally frequent values the last)."""
    time: str | None = None
    """Column with the time or position, which orders the interactions of each user. Ties keep the order of the file."""
    weight: str | None = None
    """Column with the positive weight of an interaction; default: weight 1 for all."""
    half_life: float | None = Field(default=None, gt=0)
    """Number of later interactions of the same user that halves the weight of a training interaction; default: no decay."""
    label: str | None = None
    """Column of 1 and 0. A row with 0 was shown and not taken; it is a negative of the log loss."""
    available_from: str | None = None
    """Column of the items table with the time from which each item is available, in the unit of `time`. An item without
    training interactions is used as a negative only if it was available before the last training interaction. Needs `time`
    and `items`."""
    outcome: OutcomeConfig | None = None
    events: EventsConfig | None = None
    since: Bound | None = None
    """Ignore interactions before this time: a date or time, or a number in the unit of `time` (unix seconds if that column
    contains dates). Items that occur only in ignored interactions are not in the catalogue, and histories do not contain
    them."""
    until: Bound | None = None
    """Ignore interactions at or after this time; see `since`."""
    repeats: Literal["keep", "merge"] = "keep"
    """With "merge", several rows of a user with the same item become one: the last, with the sum of the weights."""
    min_user: int = Field(default=1, ge=1)
    """Ignore users with fewer different items, together with `min_item` repeatedly until both hold (a k-core). Rows that are
    ignored by `since`, `until` and `outcome`, and negatives, do not count."""
    min_item: int = Field(default=1, ge=1)
    """Ignore interactions with items that have fewer different users. Items in an items table stay in the catalogue."""
    split: Split = NoSplit()
    carve: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Random share of the training interactions for validation, if the split has no validation part."""
    carve_last: int = Field(default=0, ge=0)
    """Number of last training interactions of each user for validation, if the split has no validation part. Needs `time`."""

    contains_changes_through: int = Field(default=0, ge=0)
    """Sequence number of the last live change that the items table already contains. Later changes are applied on top of the
    table; by default all changes."""

    @model_validator(mode="after")
    def _columns_play_one_part(self) -> "DataConfig":
        parts = {
            "user_id": self.user_id,
            "item_id": self.item_id,
            "time": self.time,
            "weight": self.weight,
            "label": self.label,
        }
        parts |= {"outcome.column": self.outcome.column} if self.outcome is not None else {}
        parts |= {"events.column": self.events.column} if self.events is not None else {}
        parts |= {"split.column": self.split.column} if isinstance(self.split, ColumnSplit) else {}
        both = sorted(set(self.user_columns) & set(self.item_columns))
        refuse_if(
            *(
                (column in columns, f"data.{key} names {column!r}, which is data.{name} and describes neither users nor items")
                for key, columns in (("user_columns", self.user_columns), ("item_columns", self.item_columns))
                for name, column in parts.items()
            ),
            (both, f"data.user_columns and data.item_columns both name {both}"),
            *(
                (
                    kept := sorted(set(self.text) & set(form.converted)),
                    f"data.text keeps {kept} as written, and data.formats.{name} converts them",
                )
                for name, form in self.formats.items()
            ),
        )
        return self

    @property
    def files(self) -> dict[str, str]:
        """Path of each table that is named: interactions, users, items."""
        paths = {"interactions": self.interactions, "users": self.users, "items": self.items}
        return {name: path for name, path in paths.items() if path is not None}

    @property
    def outcome_columns(self) -> tuple[str, ...]:
        """Columns of the interactions with the outcome of each, without repetition."""
        named = (
            self.weight,
            self.label,
            self.outcome.column if self.outcome is not None else None,
            self.events.column if self.events is not None else None,
        )
        return tuple(dict.fromkeys(name for name in named if name is not None))

    @property
    def columns_of_rows(self) -> tuple[str, ...]:
        """Columns of the interactions besides ids and fields: times, outcomes and a split."""
        split = self.split.column if isinstance(self.split, ColumnSplit) else None
        return tuple(name for name in (self.time, *self.outcome_columns, split) if name is not None)

    @property
    def weighed_by(self) -> str | None:
        """The column that gives interactions weights; None where each weighs 1."""
        return self.weight or (self.events.column if self.events is not None else None)

    @property
    def has_negatives(self) -> bool:
        """Whether some rows may count as shown and not taken."""
        outcome, events = self.outcome, self.events
        of_outcome = outcome is not None and "not taken" in (outcome.below, outcome.missing)
        of_events = events is not None and (bool(events.not_taken) or events.missing == "not taken")
        return self.label is not None or of_outcome or of_events
