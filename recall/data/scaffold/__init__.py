"""Draft a configuration for existing tables, to be reviewed and corrected.

Each guess is commented with its reason; columns that were left out are listed with a reason, too.
"""

from recall.data.scaffold.draft import draft
from recall.data.scaffold.fields import Guess, guess

__all__ = ["Guess", "draft", "guess"]
