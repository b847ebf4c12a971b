"""What all sections of the file have in common."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Frozen once read; a key that is not known is refused, and the text under a key is its documentation."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
