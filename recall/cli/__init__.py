"""The command line. Results go to stdout, everything else to stderr."""

import os
import sys

from recall.cli.overview import overview

TYPE_CHECKING = False  # as in `typing`, whose import takes longer than printing the help
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: "Sequence[str] | None" = None) -> None:
    """Run the command line and exit.

    Args:
        arguments: without the program's name; `sys.argv` when None.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given in ([], ["-h"], ["--help"]) and "_RECALL_COMPLETE" not in os.environ:
        print(overview())  # noqa: T201 - typer is not imported
        sys.exit(0 if given else 2)
    from recall.cli.app import run

    run(given)
