"""Generated sections of a Markdown file, delimited by comments with their name.

<!-- section: quality of frappe -->
...
<!-- end of section: quality of frappe -->
"""

from pathlib import Path


def replace_section(path: Path, name: str, text: str) -> None:
    """Replace the section of that name, or append it to the file."""
    first, last = f"<!-- section: {name} -->", f"<!-- end of section: {name} -->"
    whole = path.read_text(encoding="utf-8") if path.exists() else ""
    section = f"{first}\n\n{text.strip()}\n\n{last}"
    counts = (whole.count(first), whole.count(last))
    if counts == (0, 0):
        whole = f"{whole.rstrip()}\n\n{section}\n".lstrip()
    elif counts == (1, 1) and whole.index(first) < whole.index(last):
        whole = whole[: whole.index(first)] + section + whole[whole.index(last) + len(last) :]
    else:
        raise ValueError(f"{path}: the comments around section {name!r} are malformed")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(whole, encoding="utf-8")
