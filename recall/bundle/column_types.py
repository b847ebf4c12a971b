"""Types of the columns that a bundle reads, as its manifest records them."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

ColumnType = Annotated[str, Field(pattern="^(list of )?(text|integer|float32|float64|boolean|date|time|clock)$")]
"""One of "text", "integer", "float32", "float64", "boolean", "date", "time" (a moment) and "clock" (a time of day), or
"list of" one of them."""


class ColumnTypes(BaseModel):
    """Type of each column by name. A column that two tables have may have a type in each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    users: dict[str, ColumnType] = {}
    """Columns of the users table."""
    contexts: dict[str, ColumnType] = {}
    """Columns of the interactions table that a request gives."""
    items: dict[str, ColumnType] = {}
    """Columns of the items table that an item field reads, and the id column."""
    attributes: dict[str, ColumnType] = {}
    """Columns of the items table that are filtered by and read by no field."""
