"""Charts and other parts of a page: frame, sections, tiles, captions, tables.

Charts are inline SVG whose colours follow the page. Matplotlib draws; afterwards each colour is replaced by a variable of the
page's style sheet, so that one file serves light and dark screens. Texts stay texts.
"""

import io
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import import_module
from importlib.resources import files
from typing import Any
from xml.etree import ElementTree

SERIES = ("#a00001", "#a00002", "#a00003", "#a00004", "#a00005")
"""Colours of lines and groups; the page gives each a light and a dark form."""
INK, MUTED, GRID = "#b00001", "#b00002", "#b00003"
_VARIABLES = {colour: f"var(--s{number})" for number, colour in enumerate(SERIES)} | {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
}
_SIZE = (4.6, 2.9)  # inches; at 10 points the text can be read on a screen of 360 px
_SVG = "{http://www.w3.org/2000/svg}"
_LONG = 28  # characters of a label
_LABELS = 8  # points whose text is beside them


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart.

    Attributes:
        label: shown in the legend; empty for none.
        x, y: the points.
        band: lower and upper ends of the intervals of y; None for none.
        colour: one of the colours above.
        dashed: whether it is dashed, as baselines are.
        thin: whether it is thin and without points, as one among many.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    band: tuple[Sequence[float], Sequence[float]] | None = None
    colour: str = SERIES[0]
    dashed: bool = False
    thin: bool = False


def lines(
    title: str, x: str, y: str, drawn: Sequence[Line], *, marks: Sequence[tuple[float, float, str]] = (), log: bool = False
) -> str:
    """Draw lines.

    Args:
        title: what the chart shows, for screen readers.
        x: label of the axis.
        y: label of the axis.
        drawn: the lines, the last one on top.
        marks: points with a text.
        log: a logarithmic x axis.
    """

    tickers: Any = import_module("matplotlib.ticker")

    def draw(axes: Any) -> None:
        for one in drawn:
            axes.plot(
                one.x,
                one.y,
                color=one.colour,
                linewidth=0.8 if one.thin else 2,
                linestyle="--" if one.dashed else "-",
                marker="" if len(one.x) > 40 or (one.thin and len(one.x) > 1) else "o",
                markersize=2 if one.thin else 4,
                label=clean(one.label) if one.label else None,
            )
            if one.band is not None:
                axes.fill_between(one.x, *one.band, color=one.colour, alpha=0.15, linewidth=0)
        for left, top, text in marks:
            axes.plot([left], [top], marker="o", markersize=9, color=INK, fillstyle="none")
            axes.annotate(clean(text), (left, top), xytext=(6, -12), textcoords="offset points", color=INK)
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(tickers.LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_locator(tickers.NullLocator())
        elif all(isinstance(left, int) for one in drawn for left in one.x):
            axes.xaxis.set_major_locator(tickers.MaxNLocator(integer=True))
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(color=GRID, linewidth=0.8)
        if any(one.label for one in drawn):
            axes.legend(loc="best", frameon=False, labelcolor=INK)

    return _drawn(title, draw)


def bars(
    title: str,
    x: str,
    names: Sequence[str],
    values: Sequence[float],
    intervals: Sequence[tuple[float, float] | None] = (),
    colours: Sequence[str] = (),
) -> str:
    """Draw horizontal bars, the first at the top.

    Args:
        title: what the chart shows, for screen readers.
        x: label of the axis.
        names: of the bars.
        values: their lengths.
        intervals: lower and upper end of each; empty for none.
        colours: of each; empty for all alike.
    """

    def draw(axes: Any) -> None:
        places = range(len(names))
        axes.barh(places, values, color=list(colours) or SERIES[0], height=0.62)
        for place, interval in zip(places, intervals, strict=False):
            if interval is not None:
                axes.plot(interval, (place, place), color=INK, linewidth=1.2, solid_capstyle="butt")
        axes.set_yticks(list(places), [clean(name) for name in names])
        axes.invert_yaxis()
        axes.axvline(0, color=MUTED, linewidth=0.8)
        axes.set_xlabel(x)
        axes.grid(axis="x", color=GRID, linewidth=0.8)

    return _drawn(title, draw, (_SIZE[0], 0.9 + 0.26 * len(names)))


def points(title: str, groups: Mapping[str, Sequence[tuple[float, float, str]]]) -> str:
    """Draw groups of points, each with a text that the browser shows.

    Args:
        title: what the chart shows, for screen readers.
        groups: x, y and text of each point, by the name of the group; the empty name is that of the rest.
    """
    texts = [[text for *_, text in group] for group in groups.values()]

    def draw(axes: Any) -> None:
        colours = iter(SERIES)
        for number, (name, group) in enumerate(groups.items()):
            colour = next(colours) if name else MUTED
            xs, ys = [one[0] for one in group], [one[1] for one in group]
            alpha = 0.8 if name else 0.45
            axes.scatter(xs, ys, s=14, color=colour, alpha=alpha, linewidth=0, label=clean(name) or "other", gid=f"p{number}")
        each = max(1, _LABELS // max(1, len(groups)))
        for group in groups.values():
            for left, top, text in group[:each]:
                axes.annotate(clean(text), (left, top), xytext=(4, 3), textcoords="offset points", color=INK, fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
        if len(groups) > 1:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3, frameon=False, labelcolor=INK, fontsize=9)

    return _drawn(title, draw, (_SIZE[0], 4.0), texts)


def clean(text: str, long: int = _LONG) -> str:
    """Return a text that SVG may hold: without control characters, and not too long.

    Args:
        text: any.
        long: number of characters.
    """
    shown = "".join(" " if unicodedata.category(one)[0] in "CZ" else one for one in text)
    shown = " ".join(shown.split())
    return shown if len(shown) <= long else shown[: long - 1] + "…"


def _drawn(
    title: str,
    draw: Callable[[Any], None],
    size: tuple[float, float] = _SIZE,
    texts: Sequence[Sequence[str]] = (),
) -> str:
    matplotlib: Any = import_module("matplotlib")
    figures: Any = import_module("matplotlib.figure")
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "recall",
        "text.parse_math": False,
        "font.size": 10,
        "font.family": "sans-serif",
        "text.color": INK,
        "axes.labelcolor": MUTED,
        "axes.edgecolor": GRID,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": INK,
    }
    # a title may have characters that the font for measuring lacks; the browser has others
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure = figures.Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        written = io.BytesIO()
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    return _inline(written.getvalue(), title, texts)


def _inline(svg: bytes, title: str, texts: Sequence[Sequence[str]]) -> str:
    """Return an SVG file as an element of a page."""
    for prefix, name in (("", "http://www.w3.org/2000/svg"), ("xlink", "http://www.w3.org/1999/xlink")):
        ElementTree.register_namespace(prefix, name)
    root = ElementTree.fromstring(svg)  # noqa: S314 - written by matplotlib a moment ago
    for unwanted in [one for one in root if one.tag.endswith("metadata")]:
        root.remove(unwanted)
    for number, shown in enumerate(texts):
        group = root.find(f".//*[@id='p{number}']")
        marks = [] if group is None else list(group.iter(f"{_SVG}use"))
        for mark, text in zip(marks, shown, strict=True):
            ElementTree.SubElement(mark, f"{_SVG}title").text = clean(text, 200)
    for group in root.iter(f"{_SVG}g"):
        group.attrib.pop("id", None)  # the same in every chart of the page
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", title)
    shown = ElementTree.tostring(root, encoding="unicode")
    for colour, variable in _VARIABLES.items():
        shown = shown.replace(colour, variable)
    return shown


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
