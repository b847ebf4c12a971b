"""Remove file paths from texts that are shown to callers who may have no key."""

import re
from pathlib import Path

_PATH = re.compile(r"""(?<![\w./:~-])(?:/[^\s/'"`,;:()<>]+)+(/[^\s/'"`,;:()<>]*)""")
"""An absolute path of two parts or more; what has a scheme or a word before its first slash is none."""


def without_paths(text: str, root: Path) -> str:
    """Replace absolute paths in a text by their last part.

    Args:
        text: any text, such as an error message.
        root: a folder that may hold blanks in its name; paths below it are shown relative to it.
    """
    for folder in sorted({str(root), str(root.absolute()), str(root.resolve())}, key=len, reverse=True):
        if folder.startswith("/") and len(folder) > 1:
            text = text.replace(folder + "/", "").replace(folder, root.name)
    return _PATH.sub(lambda match: match[1].strip("/") or "...", text)
