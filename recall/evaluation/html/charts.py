"""Parts of a report: charts, captions, tables; and the HTML page that they make.

A chart describes its content, not its form: the page of the service draws the same charts from JSON. In an HTML file they are
inline SVG whose colours follow the page. Matplotlib draws; afterwards each colour is replaced by a variable of the page's style
sheet, so that one file serves light and dark screens. Texts stay texts.
"""

import io
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import import_module
from importlib.resources import files
from itertools import zip_longest
from typing import Any, Literal
from xml.etree import ElementTree

SERIES = ("s0", "s1", "s2", "s3", "s4")
"""Colours of lines and groups, by their names; a page gives each a light and a dark form."""
INK, MUTED, GRID = "ink", "muted", "grid"
_PAINT = {name: f"#a000{number:02d}" for number, name in enumerate((*SERIES, INK, MUTED, GRID))}  # what is replaced afterwards
_SIZE = (4.6, 2.9)  # inches; at 10 points the text can be read on a screen of 360 px
_SVG = "{http://www.w3.org/2000/svg}"
_LONG = 28  # characters of a label
_LABELS, _APART = 8, 0.06  # labels of a map, and the share of its height that is between two. Chosen, not tuned.


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart.

    Attributes:
        label: shown in the legend; empty for none.
        x, y: the points.
        band: lower and upper ends of the intervals of y; None for none.
        colour: name of a colour.
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


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines over numbers.

    Attributes:
        title: what the chart shows, for screen readers.
        x: label of the axis.
        y: label of the axis.
        lines: the lines, the last one on top.
        marks: points with a text.
        log: a logarithmic x axis.
    """

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    marks: Sequence[tuple[float, float, str]] = ()
    log: bool = False
    kind: Literal["lines"] = "lines"

    def html(self) -> str:
        """Return the chart as SVG."""
        return _drawn(self.title, self._draw)

    def _draw(self, axes: Any) -> None:
        tickers: Any = import_module("matplotlib.ticker")
        for one in self.lines:
            colour = _PAINT[one.colour]
            axes.plot(
                one.x,
                one.y,
                color=colour,
                linewidth=0.8 if one.thin else 2,
                linestyle="--" if one.dashed else "-",
                marker="" if len(one.x) > 40 or (one.thin and len(one.x) > 1) else "o",
                markersize=2 if one.thin else 4,
                label=clean(one.label) if one.label else None,
            )
            if one.band is not None:
                axes.fill_between(one.x, *one.band, color=colour, alpha=0.15, linewidth=0)
        for left, top, text in self.marks:
            axes.plot([left], [top], marker="o", markersize=9, color=_PAINT[INK], fillstyle="none")
            axes.annotate(clean(text), (left, top), xytext=(6, -12), textcoords="offset points", color=_PAINT[INK])
        if self.log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(tickers.LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_locator(tickers.NullLocator())
        elif all(isinstance(left, int) for one in self.lines for left in one.x):
            axes.xaxis.set_major_locator(tickers.MaxNLocator(integer=True))
        axes.set_xlabel(self.x)
        axes.set_ylabel(self.y)
        axes.grid(color=_PAINT[GRID], linewidth=0.8)
        if any(one.label for one in self.lines):
            axes.legend(loc="best", frameon=False, labelcolor=_PAINT[INK])


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a chart.

    Attributes:
        name: beside it.
        value: its length.
        interval: lower and upper end; None for none.
        colour: name of a colour.
    """

    name: str
    value: float
    interval: tuple[float, float] | None = None
    colour: str = SERIES[0]


@dataclass(frozen=True, slots=True)
class Bars:
    """Horizontal bars, the first at the top.

    Attributes:
        title: what the chart shows, for screen readers.
        x: label of the axis.
        bars: each of them.
    """

    title: str
    x: str
    bars: Sequence[Bar]
    kind: Literal["bars"] = "bars"

    def html(self) -> str:
        """Return the chart as SVG."""
        return _drawn(self.title, self._draw, (_SIZE[0], 0.9 + 0.26 * len(self.bars)))

    def _draw(self, axes: Any) -> None:
        places = range(len(self.bars))
        axes.barh(places, [one.value for one in self.bars], color=[_PAINT[one.colour] for one in self.bars], height=0.62)
        for place, one in enumerate(self.bars):
            if one.interval is not None:
                axes.plot(one.interval, (place, place), color=_PAINT[INK], linewidth=1.2, solid_capstyle="butt")
        axes.set_yticks(list(places), [clean(one.name) for one in self.bars])
        axes.invert_yaxis()
        axes.axvline(0, color=_PAINT[MUTED], linewidth=0.8)
        axes.set_xlabel(self.x)
        axes.grid(axis="x", color=_PAINT[GRID], linewidth=0.8)


@dataclass(frozen=True, slots=True)
class Points:
    """Groups of points, each with a text.

    Attributes:
        title: what the chart shows, for screen readers.
        groups: x, y and text of each point, by the name of the group; the empty name is that of the rest.
        labels: points that have their text beside them.
    """

    title: str
    groups: Mapping[str, Sequence[tuple[float, float, str]]]
    labels: Sequence[tuple[float, float, str]]
    kind: Literal["points"] = "points"

    @staticmethod
    def of(title: str, groups: Mapping[str, Sequence[tuple[float, float, str]]]) -> "Points":
        """Return a chart that labels the first points of each group.

        A label that would be over a different one is left out.

        Args:
            title: what the chart shows.
            groups: x, y and text of each point, by the name of the group.
        """
        heights = [one[1] for group in groups.values() for one in group]
        apart = _APART * (max(heights) - min(heights)) if heights else 0.0
        labels: list[tuple[float, float, str]] = []
        for one in (one for turn in zip_longest(*groups.values()) for one in turn if one is not None):
            if len(labels) < _LABELS and all(abs(one[1] - other[1]) > apart for other in labels):
                labels.append(one)
        return Points(title, groups, labels)

    def html(self) -> str:
        """Return the chart as SVG; the browser shows a text where the pointer rests."""
        return _drawn(self.title, self._draw, (_SIZE[0], 4.0), [[text for *_, text in group] for group in self.groups.values()])

    def _draw(self, axes: Any) -> None:
        colours = iter(SERIES)
        for number, (name, group) in enumerate(self.groups.items()):
            colour = _PAINT[next(colours) if name else MUTED]
            xs, ys = [one[0] for one in group], [one[1] for one in group]
            alpha = 0.8 if name else 0.45
            axes.scatter(xs, ys, s=14, color=colour, alpha=alpha, linewidth=0, label=clean(name) or "other", gid=f"p{number}")
        middle = sum(axes.get_xlim()) / 2
        for left, top, text in self.labels:
            place: dict[str, Any] = {"xytext": (4, 3)} if left <= middle else {"xytext": (-4, 3), "ha": "right"}
            axes.annotate(clean(text), (left, top), textcoords="offset points", color=_PAINT[INK], fontsize=8, **place)
        axes.set_xticks([])
        axes.set_yticks([])
        if len(self.groups) > 1:
            axes.legend(
                loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3, frameon=False, labelcolor=_PAINT[INK], fontsize=9
            )


@dataclass(frozen=True, slots=True)
class Caption:
    """A paragraph."""

    text: str
    kind: Literal["caption"] = "caption"

    def html(self) -> str:
        """Return the paragraph."""
        return f"<p>{escape(self.text)}</p>"


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading within a section."""

    text: str
    kind: Literal["heading"] = "heading"

    def html(self) -> str:
        """Return the heading."""
        return f"<h3>{escape(self.text)}</h3>"


@dataclass(frozen=True, slots=True)
class Table:
    """A table that is folded away.

    Attributes:
        head: names of the columns.
        rows: cells, which may hold any text.
        summary: what is shown of it.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    summary: str = "Numbers"
    kind: Literal["table"] = "table"

    def html(self) -> str:
        """Return the table."""
        top = "".join(f'<th scope="col">{escape(one)}</th>' for one in self.head)
        body = "".join("<tr>" + "".join(f"<td>{escape(clean(one, 80))}</td>" for one in row) + "</tr>" for row in self.rows)
        inside = f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
        return folded(self.summary, [f'<div class="wide" tabindex="0">{inside}</div>'])


Part = Lines | Bars | Points | Caption | Heading | Table


@dataclass(frozen=True, slots=True)
class Section:
    """A section of a report.

    Attributes:
        title: its heading.
        parts: charts, captions and tables.
        missing: why it has none; empty if it has some.
    """

    title: str
    parts: Sequence[Part]
    missing: str = ""


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
        "text.color": _PAINT[INK],
        "axes.labelcolor": _PAINT[MUTED],
        "axes.edgecolor": _PAINT[GRID],
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "xtick.color": _PAINT[MUTED],
        "ytick.color": _PAINT[MUTED],
        "xtick.labelcolor": _PAINT[MUTED],
        "ytick.labelcolor": _PAINT[INK],
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
    for name, colour in _PAINT.items():
        shown = shown.replace(colour, f"var(--{name})")
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


def section(title: str, body: Iterable[Part | str]) -> str:
    """Return a section.

    Args:
        title: any text.
        body: parts, or HTML.
    """
    shown = (part if isinstance(part, str) else part.html() for part in body)
    return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(shown) + "\n</section>"


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


def folded(summary: str, parts: Iterable[str]) -> str:
    """Return a collapsed section: its summary is shown, its parts on demand.

    Args:
        summary: any text.
        parts: HTML.
    """
    return f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>"
