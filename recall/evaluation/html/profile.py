"""The profile of a run's tables, and what was found in them, as one HTML file."""

from collections.abc import Iterator, Sequence

import numpy as np

from recall._arrays import Int64
from recall.data.findings import Finding
from recall.data.profile import ColumnProfile, Profile, concentration
from recall.evaluation.html.charts import (
    MUTED,
    SERIES,
    Bar,
    Bars,
    Caption,
    Line,
    Lines,
    Part,
    Table,
    document,
    folded,
    section,
    tiles,
)

_SHOWN = 16  # bars of a chart


def render(name: str, found: Profile, findings: Sequence[Finding]) -> str:
    """Return the page.

    Args:
        name: of the run.
        found: from its tables.
        findings: of its check.
    """
    sections = (
        ("Findings", _findings(findings)),
        ("Long tail", _tail(found)),
        ("Time line", _time_line(found)),
        ("Missing values", _missing(found.columns)),
        ("Different values", _different(found.columns)),
        ("Columns", _columns(found.columns)),
    )
    parts = [_tiles(found, findings), '<div class="sections">', *(section(title, body) for title, body in sections), "</div>"]
    return document(f"Data: {name}", parts)


def _tiles(found: Profile, findings: Sequence[Finding]) -> str:
    rows, users, items = found.rows.get("interactions", 0), len(found.per_user), len(found.per_item)
    values = {"interactions": f"{rows:,}", "users": f"{users:,}", "items": f"{items:,}"}
    notes = {"interactions": f"{rows / max(users, 1):.1f} a user, {rows / max(items, 1):.1f} an item"}
    notes |= {name: f"{found.rows[name]:,} rows in the {name} table" for name in ("users", "items") if name in found.rows}
    if found.first:
        values["from"], values["to"] = found.first, found.last
    levels = {level: sum(one.level == level for one in findings) for level in ("error", "warning", "note")}
    values["findings"] = ", ".join(f"{count} {level}{'s' * (count != 1)}" for level, count in levels.items() if count) or "none"
    return tiles(values, notes)


def _findings(findings: Sequence[Finding]) -> Iterator[Part | str]:
    for level in ("error", "warning", "note"):
        some = [one for one in findings if one.level == level]
        if some and level == "note":
            yield folded(f"{len(some)} notes", [Caption(one.line).html() for one in some])
        else:
            yield from (Caption(one.line) for one in some)
    if not findings:
        yield Caption("Nothing was found.")


def _tail(found: Profile) -> Iterator[Part]:
    sides = (("items", found.per_item, SERIES[0]), ("users", found.per_user, SERIES[1]))
    drawn = [Line("", (0, 100), (0, 100), colour=MUTED, dashed=True)]
    for name, counts, colour in sides:
        x, y = concentration(counts)
        drawn.append(Line(name, x.tolist(), y.tolist(), colour=colour))
    yield Lines("Concentration of the interactions", "% of the items or users, most frequent first", "% of interactions", drawn)
    head = ("interactions of", "fewest", "10 %", "half", "90 %", "most", "with one only")
    yield Caption("The dashed line: all alike.")
    yield Table(head, [(name, *_quantiles(counts)) for name, counts, _ in sides])


def _quantiles(counts: Int64) -> Iterator[str]:
    if not len(counts):
        yield from [""] * 6
        return
    yield from (f"{value:,.0f}" for value in np.quantile(counts, (0, 0.1, 0.5, 0.9, 1), method="inverted_cdf"))
    yield f"{int((counts == 1).sum()):,} ({(counts == 1).mean():.1%})"


def _time_line(found: Profile) -> Iterator[Part]:
    if not found.periods:
        yield Caption("No time is named in data.time, or its times cannot be read.")
        return
    drawn = [Bar(name, count) for name, count in found.periods.items()]
    yield Bars("Interactions by time", "interactions", drawn)
    yield Caption(f"From {found.first} to {found.last}.")


def _missing(columns: Sequence[ColumnProfile]) -> Iterator[Part]:
    lacking = sorted((one for one in columns if one.missing), key=lambda one: -one.missing / one.rows)
    if not lacking:
        yield Caption("No value is missing.")
        return
    drawn = [Bar(_name(one), 100 * one.missing / one.rows) for one in lacking[:_SHOWN]]
    yield Bars("Missing values", "% of the rows", drawn)
    yield Caption(f"{len(lacking)} of {len(columns)} columns lack values.")


def _different(columns: Sequence[ColumnProfile]) -> Iterator[Part]:
    shown = sorted((one for one in columns if one.different), key=lambda one: -one.different)[:_SHOWN]
    if shown:
        drawn = [Bar(_name(one), one.different) for one in shown]
        yield Bars("Different values of each column", "different values", drawn)


def _name(column: ColumnProfile) -> str:
    return f"{column.table}.{column.column}"


def _columns(columns: Sequence[ColumnProfile]) -> Iterator[Part]:
    head = ("table", "column", "type", "use", "missing", "different", "most frequent")
    shares = [f"{one.missing / max(one.rows, 1):.1%}" for one in columns]
    cells = [
        (one.table, one.column, one.type, one.use, share, f"{one.different:,}", ", ".join(one.examples))
        for one, share in zip(columns, shares, strict=True)
    ]
    yield Table(head, cells, f"{len(columns)} columns")
