"""A model's text, line by line, with errors that name the line."""

from collections.abc import Iterator
from pathlib import Path

from recall.errors import DataError


class Lines:
    """The lines of a text file, one after another; blank lines count but are passed over."""

    def __init__(self, path: Path) -> None:
        """Open a file. Raises DataError when it cannot be read or is no text."""
        self.path = path
        self.number = 0
        try:
            self._lines = path.read_text(encoding="ascii").splitlines()
        except FileNotFoundError:
            raise DataError("no such file", where=str(path), mend="Give the path of the model") from None
        except UnicodeDecodeError as error:
            raise DataError(
                "this is no text", where=str(path), why=str(error), mend="Save the model as text; a binary one cannot be read"
            ) from None
        except OSError as error:
            raise DataError("the file cannot be read", where=str(path), why=str(error)) from None

    def __iter__(self) -> Iterator[str]:
        while (line := self.next()) is not None:
            yield line

    def next(self) -> str | None:
        """The next line that is not blank, without the space around it; None at the end."""
        while self.number < len(self._lines):
            self.number += 1
            line = self._lines[self.number - 1].strip()
            if line:
                return line
        return None

    def back(self) -> None:
        """Give the last line once more."""
        self.number -= 1

    def expected(self, what: str, found: str | None) -> DataError:
        """The error for a line that is not what it should be."""
        shown = "the end of the file" if found is None else repr(found[:60])
        return DataError(f"line {self.number + (found is None)} should hold {what}, found {shown}", where=str(self.path))

    def numbers(self, text: str, what: str, count: int | None = None) -> list[float]:
        """The numbers of a line, finite all of them.

        Args:
            text: the line, or a part of it.
            what: names what should be there in an error.
            count: how many there must be; any number when None.

        Raises:
            DataError: one is no number or not finite, or there are more or fewer.
        """
        try:
            values = [float(part) for part in text.split()]
        except ValueError:
            raise self.expected(what, text) from None
        if count is not None and len(values) != count:
            raise self.expected(f"{what} ({count} numbers, here are {len(values)})", text)
        for value in values:
            if value - value != 0:  # NaN or an infinity
                raise DataError(
                    f"line {self.number} holds {value}, which is not finite",
                    where=str(self.path),
                    mend="The model diverged while it was trained; train it with a smaller learning rate",
                )
        return values
