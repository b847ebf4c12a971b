"""The command line. Results go to stdout, everything else to stderr.

The text of `recall --help` is here, so that it is printed without importing typer or any command; a test compares it with
the commands themselves.
"""

import os
import sys

TYPE_CHECKING = False  # as in `typing`, whose import takes longer than printing the help
if TYPE_CHECKING:
    from collections.abc import Sequence

ABOUT = "Recommendations by factorization machine: from tables to a running service."

COMMANDS = {
    "demo": "Run every step once: check, train, verify, publish, evaluate, serve, query.",
    "init": "Draft a recall.toml for tables as they are, to be reviewed and corrected.",
    "train": "Train a model, verify its export, and publish it.",
    "evaluate": "Evaluate a published bundle on held-out interactions, beside popularity.",
    "query": "Ask a bundle for the top items, without a server.",
    "serve": "Serve recommendations over HTTP; newly published versions are picked up.",
    "tune": "Search for better settings on a part of the training data.",
    "tune-index": "Publish a bundle with the fastest index that provably reaches the target.",
    "recommend": "Write the top items of many users to a file.",
    "predict": "Predict the probability that each user takes each item, with a log-loss model.",
    "report": "Write charts of a bundle to one HTML file, which needs no network.",
    "compare": "Compare two bundles on the same requests, and write charts of both side by side.",
    "retrain": "Continue the live version with new data, compare, publish, and activate it.",
    "rebuild": "Publish a trained model with a new catalogue, without training.",
    "import": "Publish a model of another program, verified against its score definition.",
    "compact": "Publish the current items as a new version, which folds in the live changes.",
    "publish": "Verify and publish a version built elsewhere, below the live changes of ROOT.",
    "backup": "Copy a root with its live changes and users at one point in time; verify it.",
    "versions": "List the versions of a root, newest first, and mark the live one.",
    "activate": "Make a version live, after verifying it. Running services pick it up.",
    "rollback": "Return to the version that was live before; repeat to go back further.",
    "data": "Check tables, prepare them for fast reading, or generate some.",
    "bundle": "Inspect or verify a published bundle, or export its vectors.",
    "items": "Change the catalogue of a live root.",
    "users": "Change the users of a live root.",
    "key": "API keys of a service.",
    "config": "Show a configuration, or what one may contain.",
}
OPTIONS = {
    "--version": "Print the version and exit.",
    "--debug": "Print the traceback of an error; valid anywhere.",
    "--install-completion": "Install completion for the current shell.",
    "--show-completion": "Show completion for the current shell, to copy it or customize the installation.",
    "-h, --help": "Show this message and exit.",
}
_NARROW, _WIDE = 50, 120  # limits of the width of a line


def overview() -> str:
    """Return the help of the command line as a whole."""
    width = min(max(_columns(), _NARROW), _WIDE)
    parts = ["Usage: recall [OPTIONS] COMMAND [ARGS]...\n", f"  {ABOUT}\n", "Options:", *_rows(OPTIONS, width)]
    parts += ["\nCommands:", *_rows(COMMANDS, width), "\n`recall COMMAND --help` describes a command."]
    return "\n".join(parts)


def _columns() -> int:
    try:
        return int(os.environ.get("COLUMNS", "0")) or os.get_terminal_size().columns
    except (ValueError, OSError):
        return 80


def _rows(texts: dict[str, str], width: int) -> list[str]:
    """Return a line for each name, and further lines where a text is too long."""
    indent = max(map(len, texts)) + 4
    lines = []
    for name, text in texts.items():
        line = f"  {name}".ljust(indent)
        for word in text.split():
            if len(line) + len(word) > width and line.strip() != name:
                lines.append(line.rstrip())
                line = " " * indent
            line += word + " "
        lines.append(line.rstrip())
    return lines


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
