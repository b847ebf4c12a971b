"""An evaluation as a table that people read, and as a file."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from recall._file_system import locked, make_folder
from recall.bundle.versions import LOCK, PUBLISHING, VERSIONS, evaluation_file, write_lines
from recall.errors import BundleError, DataError
from recall.evaluation.bootstrap import Comparison, Estimate
from recall.evaluation.calibration import Discrimination
from recall.evaluation.cold_start import ColdStart
from recall.evaluation.evaluate import EvaluationReport, Rival
from recall.evaluation.hold_out import BaselineResult, HeldOutItems, HeldOutUsers
from recall.evaluation.offline import Ablation, Dial

_WORTH = {"higher": "better", "lower": "worse", "undecided": "undecided"}
_FIELD = {"helps": "helps", "hurts": "hurts", "mixed": "helps and hurts", "undecided": "makes no significant difference"}


def _table(title: str, left: Iterable[str], right: Iterable[str], last: Iterable[str] = ()) -> Table:
    """Return an empty table with columns of text, then of numbers, then of text."""
    columns = [*map(Column, left), *(Column(name, justify="right") for name in right), *map(Column, last)]
    return Table(*columns, title=title, title_justify="left")


def render(report: EvaluationReport) -> RenderableType:
    """Return the report for a terminal: the model beside popularity, with intervals."""
    title = f"{report.part} part, bundle {report.bundle}"
    table = _table(title, ["metric"], ["model", "popularity", "difference", "ratio"])
    for name, figure in report.model.metrics.items():
        compared = report.comparison[name]
        table.add_row(
            name,
            figure.interval(),
            report.popularity.metrics[name].interval(),
            compared.difference.interval("+"),
            _ratio(compared),
        )
    for mine, theirs in (
        (report.model.coverage, report.popularity.coverage),
        (report.model.gini, report.popularity.gini),
    ):
        for name, value in mine.items():
            table.add_row(name, f"{value:.4f}", f"{theirs[name]:.4f}", f"{value - theirs[name]:+.4f}", "")
    parts: list[RenderableType] = [table, *map(Text, _notes(report))]
    for rival in report.rivals:
        parts += _rival(report, rival)
    further: tuple[tuple[Any, Callable[[Any], Iterable[RenderableType]]], ...] = (
        (report.dial, _dial),
        (report.held_out_users, _held_out_users),
        (report.held_out_items, _held_out_items),
        (report.cold, _cold),
        (report.discrimination, _discrimination),
        (report.ablation, _ablation),
    )
    for part, shown in further:
        if part is not None:
            parts += shown(part)
    return Group(*parts)


def _discrimination(judged: Discrimination) -> Iterable[RenderableType]:
    table = _table("\ntaken or not", ["figure"], ["value"])
    table.add_row("AUC", judged.auc.interval())
    if judged.gauc is not None:
        table.add_row("GAUC", judged.gauc.interval())
    if judged.calibration is not None:
        table.add_row("log loss", judged.calibration.log_loss.interval())
        table.add_row("log loss of the mean rate", f"{judged.calibration.constant:.4f}")
        table.add_row("calibration error", judged.calibration.error.interval())
        for one in judged.calibration.bins:
            table.add_row(f"  of {one.rows:,} rows", f"predicted {one.predicted:.4f}, observed {one.observed:.4f}")
    yield table
    yield Text(f"{judged.rows:,} rows of {judged.users:,} users, {judged.taken:,} of them taken. {judged.seconds:.1f} s.")
    if judged.source == "labels":
        yield Text("Those that were not taken are the rows of label 0.")
    else:
        how = "uniformly" if judged.power == 0 else f"by their training count to the power {judged.power:g}"
        yield Text(f"Those that were not taken are drawn, one for each interaction, {how} among items the user never took.")
    if judged.left_out:
        yield Text(f"{judged.left_out:,} rows could not be scored.")


def _rival(report: EvaluationReport, rival: Rival) -> Iterable[RenderableType]:
    title = f"\nbundle {report.bundle} against {rival.bundle}"
    table = _table(title, ["metric"], [report.bundle, rival.bundle, "difference", "ratio"], ["this one is"])
    for name, compared in rival.comparison.items():
        mine, theirs = _margin(report.model.metrics[name]), _margin(rival.model.metrics[name])
        verdict = compared.verdict if name.startswith("novelty") else _WORTH[compared.verdict]
        table.add_row(name, mine, theirs, compared.difference.interval("+"), _ratio(compared), verdict)
    yield table
    if rival.unreachable != report.unreachable:
        yield Text(f"{rival.unreachable:,} relevant items are masked or not in the catalogue of {rival.bundle}.")
    if rival.strangers != report.strangers:
        yield Text(f"{rival.strangers:,} requests are of users that {rival.bundle} does not hold.")
    if rival.context_columns != report.context_columns:
        yield Text(f"{rival.bundle}: {_read(rival.context_columns)}")


def _ablation(ablation: Ablation) -> Iterable[RenderableType]:
    recall, ndcg = (next(one for one in reversed(ablation.whole) if one.startswith(name)) for name in ("recall", "ndcg"))
    columns = [recall, "difference", ndcg, "difference"]
    table = _table("\nwithout each field", ["field", "side"], columns, ["the field"])
    whole = (f"{ablation.whole[recall].value:.4f}", "", f"{ablation.whole[ndcg].value:.4f}", "")
    table.add_row("(none)", "", *whole, "")
    for worth in ablation.fields:
        cells = [
            cell
            for name in (recall, ndcg)
            for cell in (f"{worth.metrics[name].value:.4f}", worth.comparison[name].difference.interval("+"))
        ]
        table.add_row(worth.field, worth.side, *cells, _FIELD[worth.word])
    yield table
    asked = f"Exact lists of {ablation.requests:,} requests, straight from the vectors, of the model as it was trained"
    yield Text(f"{asked}. {ablation.seconds:.1f} s.")


def _dial(dial: Dial) -> Iterable[RenderableType]:
    table = _table("\nthe popularity dial", [], ["popularity", f"recall@{dial.k}", f"coverage@{dial.k}"])
    for point in dial.points:
        table.add_row(f"{point.popularity:g}", point.recall.interval(), f"{point.coverage:.4f}")
    yield table
    yield Text(f"Exact lists of {dial.requests:,} requests, straight from the vectors. {dial.seconds:.1f} s.")


def _held_out_users(held: HeldOutUsers) -> Iterable[RenderableType]:
    asked = held.results()
    for title, head in (("held-out users: none of their interactions trained", True), ("difference to popularity", False)):
        table = _table(f"\n{title}", ["metric"], [*(["popularity"] if head else []), *asked])
        for name, popular in held.popularity.items():
            figures = [_margin(popular), *(_margin(way.metrics[name]) for way in asked.values())]
            differences = [way.comparison[name].difference.interval("+") for way in asked.values()]
            table.add_row(name, *(figures if head else differences))
        yield table
    yield Text(f"{_asked(held.requests, held.users)} {held.seconds:.1f} s.")
    yield Text("unknown: requests with an unknown user id and nothing else.")
    if held.features is not None:
        yield Text("by features: requests with the columns of the users table and of the request's context, without a history.")
    if held.history is not None:
        yield Text("by history: requests with the history alone.")


def _held_out_items(held: HeldOutItems) -> Iterable[RenderableType]:
    columns = ["model", "popularity", "content", "model - content"]
    table = _table("\nheld-out items: none of their interactions trained", ["metric"], columns)
    for name, figure in held.model.items():
        rest = ("", "") if held.content is None else _beside(held.content, name)
        table.add_row(name, _margin(figure), _margin(held.popularity.metrics[name]), *rest)
    yield table
    yield Text(f"{_asked(held.requests, held.users)} {held.seconds:.1f} s.")
    yield Text(f"m = {held.new:,} new items among n = {held.items:,} items.")
    yield Text(f"recall@{held.k} among all n: {held.among_all.interval()}")
    yield Text(f"recall@{held.k_new} among the m new ones alone, round({held.k} m / n): {held.among_new.interval()}")
    yield Text(f"their ratio: {'none' if held.ratio is None else held.ratio.interval()}")
    if held.content is None:
        yield Text("No item field reads anything but the id: nothing is known of a new item.")
    else:
        yield Text("content: cosine between an item's features and the sum over the user's training items.")


def _beside(baseline: BaselineResult, name: str) -> tuple[str, str]:
    return _margin(baseline.metrics[name]), baseline.comparison[name].difference.interval("+")


def _asked(requests: int, users: int) -> str:
    return f"Exact lists of {requests:,} requests of {users:,} users, straight from the vectors; ± is half a 95 % interval."


def _cold(cold: ColdStart) -> Iterable[RenderableType]:
    parts = cold.parts()
    shown = {"model": cold.whole} | {name: part.metrics for name, part in parts.items()}
    shown["popularity"] = cold.popularity
    table = _table("\nsimulated cold start: the same requests with ids masked", ["metric"], shown)
    for name in cold.whole:
        table.add_row(name, *(_margin(figures[name]) for figures in shown.values()))
    yield table
    yield Text(f"{_asked(cold.requests, cold.users)} {cold.seconds:.1f} s.")
    yield Text("A simulation: the model was trained on these very items and users, and only their ids are masked.")
    yield Text("It compares what ids and other fields carry. New users and items get less than that: to measure it, train and")
    yield Text("""evaluate with --set 'data.split={by="users"}' or --set 'data.split={by="items"}'.""")
    for name, masked in parts.items():
        yield Text(f"{name}: masked are {', '.join(masked.fields)}.")
    for side in ("item", "user"):
        if f"new {side}s" not in parts:
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
    yield _read(report.context_columns)
    search = "exact" if report.exact else "approximate"
    yield f"The index is {search}: it returned {report.found.value:.4%} of the exact lists. {report.seconds:.1f} s."
    yield "Brackets hold 95 % intervals, by resampling users."


def _read(columns: tuple[str, ...]) -> str:
    if not columns:
        return "Context columns read from the held-out row: none."
    named = ", ".join(columns)
    return f"Context columns read from the held-out row: {named}. Requests must contain them, known before an item is chosen."


def _margin(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.4f}"
    return f"{estimate.value:.4f} ± {(estimate.high - estimate.low) / 2:.4f}"


def _ratio(comparison: Comparison) -> str:
    return "" if comparison.ratio is None else f"{comparison.ratio.value:.2f} x"


def read_evaluation(path: Path, version: str) -> EvaluationReport:
    """Read an evaluation of a version.

    Args:
        path: what `recall evaluate` wrote.
        version: of the bundle.

    Raises:
        DataError: The file is malformed, or describes another version.
    """
    hint = "Write it with: recall evaluate CONFIG BUNDLE --out FILE"
    try:
        found = EvaluationReport.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DataError("the file must be an evaluation", where=str(path), why=str(error).splitlines()[0], hint=hint) from None
    if found.bundle != version:
        raise DataError(f"the evaluation is of bundle {found.bundle}, not of {version}", where=str(path), hint=hint)
    return found


def kept_evaluation(folder: Path) -> EvaluationReport | None:
    """Return the stored evaluation of a version; None if it is missing.

    Args:
        folder: of the version.

    Raises:
        DataError: As `read_evaluation`.
    """
    path = evaluation_file(folder)
    return read_evaluation(path, folder.name) if folder.parent.name == VERSIONS and path.exists() else None


def require_published(folder: Path) -> None:
    """Raise BundleError for a bundle that is not in a folder of versions."""
    if folder.parent.name != VERSIONS:
        raise BundleError(
            "an evaluation is kept beside a published version, and this bundle was not published",
            where=str(folder),
            hint="Give the folder that it was published to, or write the evaluation to a file with --out",
        )


def keep_evaluation(folder: Path, report: EvaluationReport) -> None:
    """Keep an evaluation beside the versions, in place of an earlier one.

    Args:
        folder: of a published version.
        report: of that version.

    Raises:
        BundleError: The bundle is in no folder of versions.
        PublishBusyError: Another process held the root's lock for a minute.
        OSError: The file system refused.
    """
    require_published(folder)
    path, root = evaluation_file(folder), folder.parent.parent
    with locked(root / LOCK, 60.0, PUBLISHING):  # a backup copies the folder, and takes longer than a publisher
        make_folder(path.parent)
        write_lines(root, str(path.relative_to(root)), [report.model_dump_json(indent=2)])
