"""Parts of a Markdown file that a script writes and writes again, each between two comments that name it.

<!-- section: quality of frappe -->
...
<!-- end of section: quality of frappe -->
"""

from pathlib import Path


def replace_section(path: Path, name: str, text: str) -> None:
    """Put `text` where the section of that name stands, or at the end of the file, which is made where there is none.

    Raises:
        ValueError: the file holds one of the section's two comments and not the other, or one of them twice.
    """
    first, last = f"<!-- section: {name} -->", f"<!-- end of section: {name} -->"
    whole = path.read_text(encoding="utf-8") if path.exists() else ""
    section = f"{first}\n\n{text.strip()}\n\n{last}"
    counts = (whole.count(first), whole.count(last))
    if counts == (0, 0):
        whole = f"{whole.rstrip()}\n\n{section}\n".lstrip()
    elif counts == (1, 1) and whole.index(first) < whole.index(last):
        whole = whole[: whole.index(first)] + section + whole[whole.index(last) + len(last) :]
    else:
        raise ValueError(f"{path}: the comments around section {name!r} are damaged")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(whole, encoding="utf-8")
