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
        twice = _repeated((*self.train, *self.valid, *self.test))
        refuse_if((twice, f"a value means one part of the split, but {twice} are named more than once"))
        return self


class LastSplit(Section):
    """Test on the last `test` interactions of each user, validate on `valid` before.

    Requires `data.time`.
    """

    by: Literal["last"]
    test: int = Field(default=1, ge=0)
    """Interactions of each user to test on."""
    valid: int = Field(default=1, ge=0)
    """Interactions of each user, before those, to validate on."""


class TimeSplit(Section):
    """Test on interactions at or after `test`, validate on those at or after `valid`.

    Each is a share of all rows or a time.
    """

    by: Literal["time"]
    test: float = 0.9
    """A number in (0, 1) is a quantile of all times; any other is a time in the column's own unit."""
    valid: float | None = None
    """Read as `test` is, and earlier than it; nothing validates when left out."""


class HashSplit(Section):
    """Shares drawn by a hash of the id and the seed: new rows move no known id."""

    test: float = Field(default=0.1, ge=0, lt=1)
    """Share to test on."""
    valid: float = Field(default=0.1, ge=0, lt=1)
    """Share to validate on; 0 when no other part should be held out."""

    @model_validator(mode="after")
    def _some_train(self) -> "HashSplit":
        share = self.test + self.valid
        refuse_if((share >= 1, f"test and valid must leave a share to train on, got {self.test} + {self.valid}"))
        return self


class UsersSplit(HashSplit):
    """A share of the users is held out entirely, which measures what new users get."""

    by: Literal["users"]
    given: float = Field(default=0.5, ge=0, lt=1)
    """With `data.time`: share of a held-out user's interactions, the oldest, that a request contains. A history field reads
    them, and `evaluation.mask` leaves them out of the answer; the later ones, at least one, are to be found. Without
    `data.time` all of them are to be found."""


class ItemsSplit(HashSplit):
    """Hold out a share of the items; they stay in the catalogue, by features only."""

    by: Literal["items"]


class RandomSplit(HashSplit):
    """Hold out a share of the (user, item) pairs, for a log without times.

    All rows of a pair are in one part.
    """

    by: Literal["random"]


class NoSplit(Section):
    """Everything trains."""

    by: Literal["none"] = "none"


Split = Annotated[
    ColumnSplit | LastSplit | TimeSplit | UsersSplit | ItemsSplit | RandomSplit | NoSplit, Field(discriminator="by")
]


class OutcomeConfig(Section):
    """Result of an interaction, such as a rating; rows below do not count."""

    column: str
    """Column of the interactions that holds numbers."""
    at_least: float = Field(allow_inf_nan=False)
    """A row with this value or a higher one counts as taken."""
    below: Literal["left out", "not taken"] = "left out"
    """A row below is read as if it were not there, or as shown and not taken, which is what label 0 says."""
    missing: Literal["error", "taken", "left out", "not taken"] = "error"
    """How a row without a value counts."""


class EventsConfig(Section):
    """A column of events, such as view, cart or purchase.

    A name in none of the three lists is an error.
    """

    column: str
    """Column of the interactions that holds the names."""
    weights: dict[str, Annotated[PositiveFloat, Field(allow_inf_nan=False)]]
    """What one event of each name counts; with `data.weight` the two are multiplied."""
    left_out: tuple[str, ...] = ()
    """Names whose rows are read as if they were not there."""
    not_taken: tuple[str, ...] = ()
    """Names whose rows are shown and not taken, which is what label 0 says."""
    missing: Literal["error", "taken", "left out", "not taken"] = "error"
    """How a row without a name counts; taken, it weighs 1."""

    @model_validator(mode="after")
    def _names_are_apart(self) -> "EventsConfig":
        twice = _repeated((*self.weights, *self.left_out, *self.not_taken))
        refuse_if(
            (not self.weights and self.missing != "taken", 'weights must name at least one event, unless missing = "taken"'),
            (twice, f"an event has one meaning, but {twice} are named more than once"),
        )
        return self


class FileFormat(Section):
    """Format of a table that is neither Parquet nor plain CSV.

    Plain is UTF-8 with commas and a header.
    """

    separator: str | None = Field(default=None, min_length=1)
    """Text between the columns of a text file, such as ";" or "::"; a tab for `.tsv` and a comma for others when left out.
    Two blanks mean two or more, as between aligned columns."""
    quote: str = Field(default='"', max_length=1)
    """Character around cells that contain separators; empty where quotes are ordinary characters."""
    rules: bool = False
    """Whether lines of dashes, and bars at both ends of all lines, are left out, as in tables that are drawn in a text."""
    backslashes: bool = False
    """Whether quotes inside of quoted cells follow a backslash, as MySQL and Spark write them, instead of a second quote."""
    encoding: str = "utf-8"
    """Encoding of a text file, as Python names it."""
    header: tuple[str, ...] | None = None
    """Names of the columns of a text file without a header row."""
    skip: int = Field(default=0, ge=0)
    """Lines of a text file above the header that are not read; with `header`, above the first row."""
    strip: bool = False
    """Whether blanks around the names and cells of a text file are removed."""
    ragged: bool = False
    """Whether rows of a text file may have more cells than the header; the cells beyond it are not read."""
    totals: tuple[str, ...] = ()
    """Rows whose first cell is one of these, such as "Total", are not read."""
    explode: str | None = None
    """Column with lists of which each member is a row of its own, such as the items of an order; empty lists give no row."""
    explode_by: str | None = Field(default=None, min_length=1)
    """Text between the members of `explode`, where that is a column of text, such as ","."""
    carry: dict[str, str] = Field(default={})
    """Columns whose empty cells have the value above, as long as the column given here (or none, if empty) does not change: for
    exports that write the customer only on the first line of an order."""
    unnest: bool = False
    """Whether each member of nested objects is a column, such as `user.id`."""
    missing: dict[str, tuple[str, ...]] = Field(default={})
    """Texts or numbers that mean a missing value in one column, such as the user id "0" of all who are not logged in."""
    numbers: dict[str, Literal[".", ","]] = Field(default={})
    """Decimal mark of columns with written numbers such as "1.234,50 €"; grouping marks, blanks and currencies are left out."""
    times: dict[str, str] = Field(default={})
    """Format of columns with times other than numbers and ISO 8601, such as "%d.%m.%Y %H:%M"."""
    clocks: dict[str, str] = Field(default={})
    """Column with the time of day that belongs to a column of `times` with the date; its format covers both, with a blank."""
    booleans: dict[str, tuple[str, str]] = Field(default={})
    """The texts for true and false of columns with truth values, in any case, such as ["yes", "no"]."""
    durations: dict[str, Literal["m:s", "h:m"]] = Field(default={})
    """What two numbers mean in columns with durations, such as 3:45, which become seconds, as 1 h 30 min and PT1H30M do."""
    units: dict[str, tuple[str, ...]] = Field(default={})
    """Texts after the numbers of columns that are left out, such as ["kg"] or ["star", "stars"]."""
    dates: dict[str, tuple[str, ...]] = Field(default={})
    """Columns made of others with year, month and day, and perhaps hour, minute and second, in this order."""
    flags: dict[str, tuple[str, ...]] = Field(default={})
    """Columns made of others with truth values or counts: the name of the last that is true or above 0 in each row, if any."""
    lists: tuple[str, ...] = ()
    """Columns with lists in programming notation, such as "['a', 'b']"; of a list of objects the names count."""

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
        return (*self.numbers, *self.times, *self.clocks.values(), *self.booleans, *self.durations, *self.lists)

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
    """One row for each interaction: Parquet, CSV or other text, JSON lines; a folder, or a pattern such as "sales_*.csv"."""
    users: str | None = None
    """One row for each user; needed only for user fields that the interactions do not have."""
    items: str | None = None
    """One row for each item; its rows are the catalogue, plus items that only the interactions name."""
    formats: dict[Literal["interactions", "users", "items"], FileFormat] = Field(default={})
    attributes: tuple[str, ...] = ()
    """Columns of the items table that no field reads and that requests may filter by; columns of fields they may anyway."""
    user_attributes: tuple[str, ...] = ()
    """Columns of the users table that no field reads and that are kept with each user, such as a name to find the user by."""
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
    missing_ids: Literal["error", "left out"] = "error"
    """Whether rows without an id, such as purchases of unknown customers, are an error."""
    missing_times: Literal["error", "left out"] = "error"
    """Whether rows without a time are an error, where `time` names a column."""
    repeated_ids: Literal["error", "first", "last"] = "error"
    """Whether several rows of a user or item in their table are an error; with "first" or "last", that row counts."""
    text: tuple[str, ...] = ()
    """Columns whose values are kept exactly as they are written, such as product codes: without it, a column of a CSV file in
    which every value is a number, a truth value, a date or a time is read as such, and 1.50 is 1.5. Any table; ids too."""
    user_columns: tuple[str, ...] = ()
    """Columns of the interactions that describe the user: read as columns of the users table, for each user the value that
    most of the user's rows have (of equally frequent ones the last)."""
    item_columns: tuple[str, ...] = ()
    """Columns of the interactions that describe the item, such as its title in a log: read as columns of the items table, for
    each item the value that most of its rows have (of equally frequent ones the last)."""
    time: str | None = None
    """Time or position; orders each user's interactions. Ties keep the order of the file."""
    weight: str | None = None
    """Positive strength of an interaction; 1 for all when left out."""
    half_life: float | None = Field(default=None, gt=0)
    """A training interaction weighs half for every so many later ones of its user; all weigh alike when left out."""
    label: str | None = None
    """Column of 1 and 0; a row of 0 was shown and not taken, and is a negative of log loss."""
    available_from: str | None = None
    """Column of the items table with the time from which each item is on offer, in the unit of `time`. An item without training
    interactions is not used as a negative, unless it was on offer before the last of them; needs `time` and `items`."""
    outcome: OutcomeConfig | None = None
    events: EventsConfig | None = None
    since: Bound | None = None
    """Interactions before this time are left out: a date or time, or a number in the unit of `time` (unix seconds where that
    column holds dates). Items that these alone name are not in the catalogue, and users do not have them in their history."""
    until: Bound | None = None
    """Interactions at or after this time are left out; as `since`."""
    repeats: Literal["keep", "merge"] = "keep"
    """Whether each row of a user with the same item counts, or only the last one, with the sum of their weights."""
    min_user: int = Field(default=1, ge=1)
    """Users with fewer different items are left out, and so are their interactions; together with `min_item`, again and again
    until both hold (a k-core). What is left out by `since`, `until` and `outcome` does not count, nor what was not taken."""
    min_item: int = Field(default=1, ge=1)
    """Items with fewer different users are left out. Those of an items table stay in the catalogue, without interactions."""
    split: Split = NoSplit()
    carve: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the training interactions drawn at random to validate on, when the split itself leaves none."""
    carve_last: int = Field(default=0, ge=0)
    """Last training interactions of each user to validate on, when the split leaves none; needs `time`."""

    contains_changes_through: int = Field(default=0, ge=0)
    """The items table contains all live changes up to this sequence, as an answer to a change names it. Later ones stay on top
    of what is trained from it; by default all do."""

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
        """Columns of the interactions that say how each turned out, without repetition."""
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
