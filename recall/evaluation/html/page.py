"""A report of one bundle, or of two side by side, as one HTML file.

It has no scripts, and needs no network.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files

from recall.evaluation.bootstrap import Comparison
from recall.evaluation.html.sections import DIFFERENCES, SECTIONS
from recall.evaluation.html.subject import MissingDataError, Subject, Subjects

_HEADLINES = ("recall", "ndcg")


def render(subjects: Sequence[Subject], differences: Mapping[str, Comparison] | None = None) -> str:
    """Return the page.

    Args:
        subjects: one bundle, or two to compare.
        differences: of the first bundle from the second by metric, over the same requests.
    """
    page = Subjects(subjects, differences or {})
    names = " and ".join(f"{one.manifest.name} {one.manifest.version}" for one in subjects)
    sections = (DIFFERENCES, *SECTIONS) if page.several else SECTIONS
    tiles = [_tiles(one, f"<h2>{escape(one.manifest.version)}</h2>" if page.several else "") for one in subjects]
    parts = [*tiles, '<div class="sections">', *(_section(title, draw, page) for title, draw in sections), "</div>"]
    style = files("recall.evaluation.html").joinpath("report.css").read_text(encoding="utf-8")
    title = escape(f"{'Comparison' if page.several else 'Report'}: {names}")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _section(title: str, draw: Callable[[Subjects], Iterator[str]], page: Subjects) -> str:
    try:
        body = "\n".join(part for part in draw(page) if part)
    except MissingDataError as missing:
        body = f'<p class="missing">{escape(str(missing))}</p>'
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>"


def _tiles(subject: Subject, head: str = "") -> str:
    manifest, sizes = subject.manifest, subject.manifest.sizes
    tiles = {
        "created": manifest.created[:10],
        "users": f"{sizes.users:,}",
        "items": f"{sizes.items:,}",
        "model": manifest.model.kind,
        "index": manifest.index.kind,
    }
    notes = {"model": f"k {sizes.k}, {manifest.objective or 'imported'}", "index": f"recall {manifest.index.recall:.4f}"}
    if subject.evaluation is not None:
        for family in _HEADLINES:
            name = next(name for name in reversed(subject.evaluation.model.metrics) if name.startswith(family))
            tiles[name] = f"{subject.evaluation.model.metrics[name].value:.4f}"
            notes[name] = f"popularity {subject.evaluation.popularity.metrics[name].value:.4f}"
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><dd>{escape(notes.get(name, ''))}</dd></div>"
        for name, value in tiles.items()
    )
    return f'{head}<dl class="tiles">{cells}</dl>'
