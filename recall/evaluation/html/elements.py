"""Parts of a page: its frame, sections, tiles, captions and tables."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files

from recall.evaluation.html.charts import clean


def document(title: str, parts: Iterable[str]) -> str:
    """Return a page that has no scripts, and needs no network.

    Args:
        title: any text.
        parts: HTML.
    """
    style = files("recall.evaluation.html").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(title: str, body: Iterable[str]) -> str:
    """Return a section.

    Args:
        title: any text.
        body: HTML.
    """
    return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(part for part in body if part) + "\n</section>"


def tiles(values: Mapping[str, str], notes: Mapping[str, str]) -> str:
    """Return a row of figures with their names.

    Args:
        values: texts by name.
        notes: further texts of some.
    """
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><dd>{escape(notes.get(name, ''))}</dd></div>"
        for name, value in values.items()
    )
    return f'<dl class="tiles">{cells}</dl>'


def caption(text: str) -> str:
    """Return a paragraph.

    Args:
        text: any.
    """
    return f"<p>{escape(text)}</p>"


def table(head: Sequence[str], rows: Iterable[Sequence[object]], summary: str = "Numbers") -> str:
    """Return a table that is folded away.

    Args:
        head: names of the columns.
        rows: cells, which may hold any text.
        summary: what is shown of it.
    """
    top = "".join(f'<th scope="col">{escape(one)}</th>' for one in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(clean(str(one), 80))}</td>" for one in row) + "</tr>" for row in rows)
    inside = f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    return folded(summary, [f'<div class="wide" tabindex="0">{inside}</div>'])


def folded(summary: str, parts: Iterable[str]) -> str:
    """Return parts of which only a summary is shown at first.

    Args:
        summary: any text.
        parts: HTML.
    """
    return f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>"
