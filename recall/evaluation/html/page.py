"""A report of one bundle, or of two side by side, as one HTML file.

It has no scripts, and needs no network.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape

from recall.evaluation.bootstrap import Comparison
from recall.evaluation.html.charts import document, section, tiles
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
    figures = [_tiles(one, f"<h2>{escape(one.manifest.version)}</h2>" if page.several else "") for one in subjects]
    parts = [*figures, '<div class="sections">', *(_section(title, draw, page) for title, draw in sections), "</div>"]
    return document(f"{'Comparison' if page.several else 'Report'}: {names}", parts)


def _section(title: str, draw: Callable[[Subjects], Iterator[str]], page: Subjects) -> str:
    try:
        return section(title, list(draw(page)))
    except MissingDataError as missing:
        return section(title, [f'<p class="missing">{escape(str(missing))}</p>'])


def _tiles(subject: Subject, head: str = "") -> str:
    manifest, sizes = subject.manifest, subject.manifest.sizes
    values = {
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
            values[name] = f"{subject.evaluation.model.metrics[name].value:.4f}"
            notes[name] = f"popularity {subject.evaluation.popularity.metrics[name].value:.4f}"
    return head + tiles(values, notes)
