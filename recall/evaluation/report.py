"""An evaluation as a table that people read."""

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from recall.evaluation.bootstrap import Comparison, Estimate
from recall.evaluation.cold import ColdStart
from recall.evaluation.dial import Dial
from recall.evaluation.evaluate import EvaluationReport


def render(report: EvaluationReport) -> RenderableType:
    """The report for a terminal: model beside popularity, with 95 % intervals, and how it was asked."""
    table = Table(title=f"{report.part} part, bundle {report.bundle}", title_justify="left")
    table.add_column("metric")
    for name in ("model", "popularity", "difference", "ratio"):
        table.add_column(name, justify="right")
    for name, figure in report.model.metrics.items():
        compared = report.comparison[name]
        table.add_row(
            name,
            _interval(figure),
            _interval(report.popularity.metrics[name]),
            _interval(compared.difference, "+"),
            _ratio(compared),
        )
    for mine, theirs in (
        (report.model.coverage, report.popularity.coverage),
        (report.model.gini, report.popularity.gini),
    ):
        for name, value in mine.items():
            table.add_row(name, f"{value:.4f}", f"{theirs[name]:.4f}", f"{value - theirs[name]:+.4f}", "")
    notes = [Text(line) for line in _notes(report)]
    return Group(table, *notes, *(_dial(report.dial) if report.dial is not None else ()), *_cold(report.cold))


def _dial(dial: Dial) -> Iterable[RenderableType]:
    table = Table(title="\nthe popularity dial", title_justify="left")
    for name in ("popularity", f"recall@{dial.k}", f"coverage@{dial.k}"):
        table.add_column(name, justify="right")
    for point in dial.points:
        table.add_row(f"{point.popularity:g}", _interval(point.recall), f"{point.coverage:.4f}")
    yield table
    yield Text(f"Exact lists of {dial.requests:,} requests, straight from the vectors. {dial.seconds:.1f} s.")


def _cold(cold: ColdStart) -> Iterable[RenderableType]:
    table = Table(title="\ncold start: the same requests with ids unknown", title_justify="left")
    table.add_column("metric")
    parts = {"new items": cold.new_items, "new users": cold.new_users, "history only": cold.history_only}
    shown = {"model": cold.whole} | {name: part.metrics for name, part in parts.items() if part is not None}
    shown["popularity"] = cold.popularity
    for name in shown:
        table.add_column(name, justify="right")
    for name in cold.whole:
        table.add_row(name, *(_margin(figures[name]) for figures in shown.values()))
    yield table
    asked = f"{cold.requests:,} requests of {cold.users:,} users"
    yield Text(f"Exact lists of {asked}, straight from the vectors; ± is half a 95 % interval. {cold.seconds:.1f} s.")
    for name, part in parts.items():
        if part is not None:
            yield Text(f"{name}: masked are {', '.join(part.fields)}.")
    for side, part in (("item", cold.new_items), ("user", cold.new_users)):
        if part is None:
            yield Text(f"No {side} field reads the id: a new {side} is scored as any other with the same features.")


def _notes(report: EvaluationReport) -> Iterable[str]:
    asked = "each row is a request" if report.request == "row" else "rows of one user and context are a request"
    masks = {
        "none": "nothing is masked",
        "context": "items known in the same context are masked",
        "user": "known items are masked",
    }
    yield f"{report.requests:,} requests of {report.users:,} users over {report.items:,} items: {asked}, {masks[report.mask]}."
    if report.unreachable:
        lost = f"{report.unreachable:,} of {report.relevant:,} relevant items"
        yield f"{lost} are masked or not in the catalogue, and count as missed."
    if report.strangers:
        yield f"{report.strangers:,} requests are of users that the bundle does not hold."
    search = "exact" if report.exact else "approximate"
    yield f"The index is {search}: it returned {report.found.value:.4%} of the exact lists. {report.seconds:.1f} s."
    yield "Brackets hold 95 % intervals, by drawing users anew."


def _interval(estimate: Estimate, sign: str = "") -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:{sign}.4f}"
    return f"{estimate.value:{sign}.4f} [{estimate.low:{sign}.4f}, {estimate.high:{sign}.4f}]"


def _margin(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.4f}"
    return f"{estimate.value:.4f} ± {(estimate.high - estimate.low) / 2:.4f}"


def _ratio(comparison: Comparison) -> str:
    return "" if comparison.ratio is None else f"{comparison.ratio.value:.2f} x"
