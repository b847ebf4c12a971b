"""The text of `recall --help`.

It is printed without importing typer or any command; a test compares it with the commands themselves.
"""

import os

ABOUT = "Train factorization machines on interactions, and serve recommendations."

COMMANDS = {
    "demo": "Run every step once: check, train, verify, publish, evaluate, serve, query.",
    "init": "Write a configuration (recall.toml) for your tables, to review before training.",
    "train": "Train a model, verify its export, and publish it.",
    "evaluate": "Evaluate a published bundle on held-out interactions, compared with popularity.",
    "query": "Print the top items of a request, without a server.",
    "serve": "Serve recommendations over HTTP, and switch to newly published versions.",
    "tune": "Search for better settings on the validation part.",
    "tune-index": "Publish a bundle with the fastest index that verifiably reaches the target.",
    "recommend": "Write the top items of many users to a file.",
    "predict": "Predict the probability that each user takes each item, with a log-loss model.",
    "report": "Write charts of a bundle to an HTML file.",
    "compare": "Compare two bundles on the same requests, and write charts of both to HTML.",
    "retrain": "Continue training with new data, and activate the result unless it is worse.",
    "rebuild": "Publish the live model with a new items table, without training.",
    "import": "Publish a model that another program has trained.",
    "compact": "Publish a new version that contains the live changes of items.",
    "publish": "Verify and publish a version made elsewhere; live changes of ROOT stay on top.",
    "backup": "Make a consistent copy of a root with its live changes and users, and verify it.",
    "versions": "List the versions of a root, newest first, and mark the live one.",
    "activate": "Verify a version and make it live. Running services switch to it.",
    "rollback": "Return to the version that was live before; repeat to go back further.",
    "data": "Check tables, prepare them for fast reading, or generate example tables.",
    "bundle": "Inspect or verify a published bundle, or export its vectors.",
    "items": "Change the catalogue of a live root.",
    "users": "Change the users of a live root.",
    "key": "Generate API keys for a service.",
    "config": "Show a configuration, or all possible settings.",
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
