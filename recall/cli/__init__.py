"""The command line. Results go to stdout, everything else to stderr."""

from recall.cli.app import main

__all__ = ["main"]
