"""A first configuration for tables that are there already, to be read and corrected.

What was guessed stands beside each line, with its reason; what was left out is said where it would have stood.
"""

from recall.data.scaffold.draft import draft
from recall.data.scaffold.fields import Guess, guess

__all__ = ["Guess", "draft", "guess"]
