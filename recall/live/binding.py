"""What a version holds of the changes of a root, and what stays on top of it.

One rule, whether changes were compacted or not: live changes lie on top of every version, but for those that its tables
contain. Tables contain none unless their owner says up to which sequence they do.
"""

from recall.bundle.manifest import Manifest

THROUGH = "contains_changes_through"
"""Key of `[data]`: the tables contain all live changes up to this sequence."""


def contained(manifest: Manifest, identity: str) -> int:
    """Return the sequence up to which the tables behind a version contain the changes of a log; 0 where they contain none."""
    data = manifest.config.get("data")
    through = data.get(THROUGH) if isinstance(data, dict) else None
    return through if isinstance(through, int) and getattr(manifest, "log", identity) == identity else 0
