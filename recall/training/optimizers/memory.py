"""What a rule remembers of each row of a table."""

from collections.abc import Mapping

import torch
from torch import Tensor


class Memory:
    """Named tables of the same rows as the table that is optimised."""

    def __init__(self, tables: Mapping[str, Tensor]) -> None:
        self._tables = dict(tables)

    def read(self, name: str, rows: Tensor | None) -> Tensor:
        """Rows of one table: a copy, or the table itself for all rows."""
        table = self._tables[name]
        return table if rows is None else table[rows]

    def write(self, name: str, rows: Tensor | None, values: Tensor) -> None:
        """Put rows back; what was read as a whole and changed in place is there already."""
        table = self._tables[name]
        if rows is not None:
            table[rows] = values
        elif values is not table:
            table.copy_(values)

    def state(self) -> dict[str, Tensor]:
        """All tables by name."""
        return dict(self._tables)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over the values of tables of the same names and shapes."""
        for name, table in self._tables.items():
            table.copy_(state[name])


def subtract(table: Tensor, rows: Tensor | None, change: Tensor) -> None:
    """table[rows] -= change."""
    if rows is None:
        table.sub_(change)
    else:
        table.index_add_(0, rows, change, alpha=-1)


def zeros(table: Tensor) -> Tensor:
    """A table of zeros beside another one."""
    return torch.zeros_like(table)
