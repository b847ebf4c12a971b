"""A report of one bundle or of two, as HTML or as data for the page.

Its sections are charts and tables, or the reason why they are missing. The file has no scripts, and needs no network.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, cast

import numpy as np

from recall.evaluation.bootstrap import Comparison, Estimate
from recall.evaluation.html.charts import (
    MUTED,
    SERIES,
    Bar,
    Bars,
    Caption,
    Line,
    Lines,
    Part,
    Points,
    Section,
    Table,
    clean,
    document,
    section,
    tiles,
)
from recall.evaluation.html.subject import PAIRS, MissingDataError, Subject, Subjects, evaluated

_SHOWN = 12  # bars of a chart
_HEADLINES = ("recall", "ndcg")


def _differences(page: Subjects) -> Iterator[Part]:
    if not page.differences:
        raise MissingDataError("There is nothing to compare with.")
    shown = {name: one for name, one in page.differences.items() if not name.startswith("novelty")}
    names = [one.manifest.version for one in page.subjects]
    colours = {"higher": SERIES[0], "lower": SERIES[3], "undecided": MUTED}
    drawn = [Bar(name, one.difference.value, _ends(one.difference), colours[one.verdict]) for name, one in shown.items()]
    yield Bars("Paired differences of all metrics", f"{names[0]} minus {names[1]}", drawn)
    yield Caption("95 % intervals by paired resampling of users; grey where the interval contains 0.")


def _of_each_bundle(draw: Callable[[Subject], Iterator[Part]]) -> Callable[[Subjects], Iterator[Part]]:
    """Make a section of all bundles from a function that draws one."""

    def draw_all(page: Subjects) -> Iterator[Part]:
        reasons = []
        for one in page.subjects:
            try:
                parts = list(draw(one))
            except MissingDataError as missing:
                reasons.append(str(missing))
            else:
                yield from page.heading(one)
                yield from parts
        if len(reasons) == len(page.subjects):
            raise MissingDataError(" ".join(dict.fromkeys(reasons)))

    return draw_all


@_of_each_bundle
def _curves(one: Subject) -> Iterator[Part]:
    curve, race = one.manifest.metrics.get("curve"), one.manifest.metrics.get("race")
    runs: list[Any] = []
    if isinstance(race, dict) and isinstance(race.get("raced"), list):
        runs = [run for run in race["raced"] if isinstance(run, dict) and run.get("figures")]  # type: ignore[union-attr]
        if runs:
            yield _race_chart(str(race["metric"]), str(race["winner"]), runs, race["popularity"])
            rows = [
                [
                    run["recipe"],
                    Estimate(value=run["value"], low=run["low"], high=run["high"]).interval(),
                    str(run["sweeps"]),
                    str(run["seconds"]),
                ]
                for run in runs
            ]
            yield Table(["recipe", str(race["metric"]), "best sweep", "s"], rows)
    if isinstance(curve, dict) and isinstance(losses := curve.get("losses"), list) and losses:
        train = one.manifest.config.get("train")
        warm = isinstance(train, dict) and train.get("opening") is not None and "growth" not in one.manifest.metrics
        yield from _final_charts(curve, warm=warm, raced=isinstance(race, dict))
    elif not runs:
        raise MissingDataError("The bundle records no curve: it was trained by an earlier version, or imported.")


def _race_chart(metric: str, winner: str, runs: Sequence[Any], popularity: Any) -> Lines:
    longest = max(len(run["figures"]) for run in runs)
    drawn = []
    for run in reversed(runs):
        first = run["recipe"] == winner
        drawn.append(
            Line(
                clean(run["recipe"]) if first else "",
                range(1, len(run["figures"]) + 1),
                run["figures"],
                colour=SERIES[0] if first else MUTED,
                thin=not first,
            )
        )
    level = float(popularity["value"])
    drawn.append(Line("popularity", (1, max(2, longest)), (level, level), colour=SERIES[1], dashed=True, thin=True))
    return Lines(f"Learning curves of the {len(runs)} runs of the race", "sweep", f"{metric}, validation", drawn)


def _final_charts(curve: Mapping[str, Any], *, warm: bool, raced: bool) -> Iterator[Part]:
    losses, first = curve["losses"], int(warm)  # the first loss of a warm-up is of another objective
    sweeps = range(1, len(losses) + 1)
    looked = [(sweep, figure) for sweep, figure in zip(sweeps, curve.get("figures", ()), strict=False) if figure is not None]
    yield Lines("Loss by sweep of the final training", "sweep", "loss", [Line("", sweeps[first:], losses[first:])])
    if looked:
        best = [(float(sweep), float(figure), "kept") for sweep, figure in looked if sweep == curve.get("best_sweep")]
        drawn = [Line("", [one[0] for one in looked], [one[1] for one in looked], colour=SERIES[2])]
        yield Lines("Validation figure by sweep", "sweep", "validation figure", drawn, marks=best)
        yield Caption("Final training. The figure decides early stopping.")
    elif raced:
        yield Caption("Final training, on the validation part, too: the race has chosen the number of sweeps.")
    else:
        yield Caption("Final training. There was no validation part, so all sweeps were run.")


def _quality(page: Subjects) -> Iterator[Part]:
    judged = page.judged()
    for family in ("recall", "ndcg"):
        drawn = [_by_k(name, family, one.model.metrics, colour) for name, colour, one in judged]
        drawn.insert(0, _by_k("popularity", family, judged[0][2].popularity.metrics, MUTED, dashed=True))
        yield Lines(f"{family}@K against K", "K", f"{family}@K", drawn)
    *_, first = judged[0]
    yield Caption(
        f"{first.requests:,} requests of {first.users:,} users of the {first.part} part over {first.items:,} items; "
        "bands are 95 % intervals, by resampling users."
    )
    head = ["metric", *(name for name, *_ in judged), "popularity"]
    rows = [
        [metric, *(one.model.metrics[metric].interval() for *_, one in judged), first.popularity.metrics[metric].interval()]
        for metric in first.model.metrics
    ]
    rows += [
        [metric, *(f"{one.model.coverage[metric]:.4f}" for *_, one in judged), f"{first.popularity.coverage[metric]:.4f}"]
        for metric in first.model.coverage
    ]
    yield Table(head, rows)


def _by_k(label: str, family: str, metrics: Mapping[str, Estimate], colour: str, *, dashed: bool = False) -> Line:
    found = {int(name.partition("@")[2]): one for name, one in metrics.items() if name.startswith(f"{family}@")}
    return _banded(label, list(found), [*found.values()], colour, dashed=dashed)


def _banded(label: str, x: Sequence[float], found: Sequence[Estimate], colour: str, *, dashed: bool = False) -> Line:
    ends = [_ends(one) for one in found]
    band = ([end[0] for end in ends if end], [end[1] for end in ends if end]) if all(ends) else None
    return Line(label, x, [one.value for one in found], band, colour, dashed)


def _dial(page: Subjects) -> Iterator[Part]:
    dials = [(name, colour, one.dial) for name, colour, one in page.judged() if one.dial is not None]
    if not dials:
        raise MissingDataError("evaluation.dial is empty, so the popularity dial was not turned.")
    k = dials[0][2].k
    recalls, coverages = [], []
    for name, colour, dial in dials:
        x = [point.popularity for point in dial.points]
        label = name if page.several else ""
        recalls.append(_banded(label, x, [point.recall for point in dial.points], colour))
        coverages.append(Line(label, x, [point.coverage for point in dial.points], None, colour if page.several else SERIES[2]))
    yield Lines(f"recall@{k} over the popularity dial", "popularity of a request", f"recall@{k}", recalls)
    yield Lines(f"Coverage@{k} over the popularity dial", "popularity of a request", f"coverage@{k}", coverages)
    yield Caption("A request's popularity weighs the popular part of a score: 1 is the model as it was trained, 0 is without.")


@_of_each_bundle
def _cold(one: Subject) -> Iterator[Part]:
    report = evaluated(one)
    users, items = report.held_out_users, report.held_out_items
    groups: dict[str, Mapping[str, Estimate]] = {}
    if users is not None:
        groups = {f"new users, {way}": asked.metrics for way, asked in users.results().items()}
        groups["popularity"] = users.popularity
    if items is not None:
        groups = {"new items, model": items.model, "popularity": items.popularity.metrics}
        groups |= {"content": items.content.metrics} if items.content is not None else {}
    if report.cold is not None:
        groups = {"all ids known": report.cold.whole}
        groups |= {f"{part}, simulated": masked.metrics for part, masked in report.cold.parts().items()}
        groups["popularity"] = report.cold.popularity
    if not groups:
        raise MissingDataError("The evaluation has no figures of new users or items.")
    metric = next(metric for metric in reversed(list(next(iter(groups.values())))) if metric.startswith("recall"))
    drawn = [
        Bar(way, metrics[metric].value, _ends(metrics[metric]), MUTED if way == "popularity" else SERIES[0])
        for way, metrics in groups.items()
    ]
    yield Bars("Cold start", metric, drawn)
    if report.cold is not None:
        yield Caption(
            "Simulated: ids are masked of users and items that were trained on. New ones get less: a split by users or "
            "by items (data.split) measures it."
        )
    else:
        yield Caption("Held out: no interaction of these users or items was trained on.")


@_of_each_bundle
def _fields(one: Subject) -> Iterator[Part]:
    recorded = cast(Any, one.manifest.metrics.get("fields"))
    ablation = one.evaluation.ablation if one.evaluation is not None else None
    if ablation is not None:
        metric = next(metric for metric in reversed(ablation.whole) if metric.startswith("ndcg"))
        differences = {worth.field: worth.comparison[metric].difference for worth in ablation.fields}
        colours = {worth.field: {"helps": SERIES[0], "hurts": SERIES[3]}.get(worth.word, MUTED) for worth in ablation.fields}
        drawn = [Bar(name, by.value, _ends(by), colours[name]) for name, by in differences.items()]
        unit = f"{metric} without the field, minus with it"
    elif recorded:
        drawn = [Bar(worth["name"], -worth["loss"], None, SERIES[0] if worth["helps"] else MUTED) for worth in recorded]
        unit = "validation figure without the field, minus with it"
    else:
        raise MissingDataError("Training recorded none, and no ablation was requested: use recall evaluate --ablate.")
    yield Bars("What each field is worth", unit, sorted(drawn, key=lambda bar: bar.value)[:_SHOWN])
    yield Caption("Negative where the field helps. The model is not trained again; grey where nothing shows.")


def _strengths(page: Subjects) -> Iterator[Part]:
    for one, colour in zip(page.subjects, SERIES, strict=False):
        yield from page.heading(one)
        drawn = [Bar(name, value, colour=colour) for name, value in list(one.pairs.items())[:_SHOWN]]
        yield Bars("Strength of pairs of fields", "standard deviation of its part of a score", drawn)
    yield Caption(f"Over {PAIRS} random pairs of a stored user and an item, without a context. What varies more, ranks more.")


@_of_each_bundle
def _index(one: Subject) -> Iterator[Part]:
    record = one.manifest.index
    trials = [trial for trial in record.candidates if trial.curve]
    if not trials:
        raise MissingDataError(record.why or f"The index is {record.kind}, and no other was tried.")
    drawn, marks = [], []
    for number, trial in enumerate(trials):
        curve = sorted(trial.curve, key=lambda point: point.recall)
        colour = SERIES[number] if number < len(SERIES) else MUTED
        drawn.append(
            Line(trial.name, [point.microseconds for point in curve], [point.recall for point in curve], colour=colour)
        )
        if trial.kind == record.kind and trial.tuned is not None:
            marks += [(point.microseconds, point.recall, "chosen") for point in trial.curve if point.effort == trial.tuned]
    title = f"Recall against time of a search, top {record.n}"
    yield Lines(title, "µs a query", "recall of exact top n", drawn, marks=marks[:1], log=True)
    if record.certificate is not None:
        proof = record.certificate
        yield Caption(f"Verified on {proof.queries:,} other users: recall at least {proof.lower:.4f} ({proof.confidence:.0%}).")


@_of_each_bundle
def _map(one: Subject) -> Iterator[Part]:
    yield Points.of("Map of the items", {name: [*group.values()] for name, group in one.map.items()})
    count = sum(map(len, one.map.values()))
    by = f", coloured by {one.column}" if one.column else ""
    yield Caption(
        f"The {count:,} items with the most interactions{by}: two principal components of their vectors, with "
        f"{one.explained:.0%} of the variance. Rest the pointer on an item to see its title."
    )


def _calibration(page: Subjects) -> Iterator[Part]:
    found = [(name, colour, one.discrimination) for name, colour, one in page.judged() if one.discrimination is not None]
    curves = [(name, colour, one.calibration) for name, colour, one in found if one.calibration is not None]
    if not curves:
        aucs = "; ".join(f"AUC {one.auc.interval()}" for _, _, one in found)
        why = "Scores are not probabilities: the model was not trained by log loss."
        raise MissingDataError(f"{why} {aucs}" if aucs else why)
    drawn = [
        Line(name, [one.predicted for one in curve.bins], [one.observed for one in curve.bins], colour=colour)
        for name, colour, curve in curves
    ]
    most = max(max(one.x[-1], *one.y) for one in drawn)
    drawn.insert(0, Line("perfect", (0, most), (0, most), colour=MUTED, dashed=True, thin=True))
    yield Lines("Observed rate against predicted probability", "predicted", "observed", drawn)
    for name, _, curve in curves:
        yield Caption(f"{name}: log loss {curve.log_loss.interval()}, calibration error {curve.error.interval()}.")


def _latency(page: Subjects) -> Iterator[Part]:
    drawn = []
    for one, colour in zip(page.subjects, SERIES, strict=False):
        if not len(one.milliseconds):
            raise MissingDataError("Not measured here: the traffic shows the latency of real requests.")
        share = (np.arange(len(one.milliseconds)) + 1) / len(one.milliseconds)
        label = page.name(one) if page.several else ""
        drawn.append(Line(label, one.milliseconds.tolist(), share.tolist(), colour=colour))
    yield Lines("Share of requests answered within a time", "ms", "share of requests", drawn, log=True)
    for one in page.subjects:
        p50, p99 = np.quantile(one.milliseconds, [0.5, 0.99])
        yield Caption(
            f"{page.name(one)}: median {p50:.2f} ms, p99 {p99:.2f} ms. {len(one.milliseconds)} requests for 10 items, one "
            "after the other, in the process that wrote this report, without HTTP."
        )


def _ends(one: Estimate) -> tuple[float, float] | None:
    return None if one.low is None or one.high is None else (one.low, one.high)


SECTIONS: tuple[tuple[str, Callable[[Subjects], Iterator[Part]]], ...] = (
    ("Quality", _quality),
    ("Learning curves", _curves),
    ("Popularity dial", _dial),
    ("Cold start", _cold),
    ("What each field is worth", _fields),
    ("Strength of field pairs", _strengths),
    ("Item map", _map),
    ("Index: recall against speed", _index),
    ("Calibration", _calibration),
    ("Latency", _latency),
)
"""Title and content of each section."""
DIFFERENCES = ("Differences", _differences)
"""The further section of two bundles."""


def sections(page: Subjects) -> list[Section]:
    """Return the sections of a report.

    Args:
        page: the bundles.
    """
    return [_section(title, draw, page) for title, draw in ((DIFFERENCES, *SECTIONS) if page.several else SECTIONS)]


def _section(title: str, draw: Callable[[Subjects], Iterator[Part]], page: Subjects) -> Section:
    try:
        return Section(title, list(draw(page)))
    except MissingDataError as missing:
        return Section(title, (), str(missing))


def render(subjects: Sequence[Subject], differences: Mapping[str, Comparison] | None = None) -> str:
    """Return a report as HTML.

    Args:
        subjects: one bundle, or two to compare.
        differences: of the first bundle from the second by metric, over the same requests.
    """
    page = Subjects(subjects, differences or {})
    names = " and ".join(f"{one.manifest.name} {one.manifest.version}" for one in subjects)
    figures = [_tiles(one, f"<h2>{escape(one.manifest.version)}</h2>" if page.several else "") for one in subjects]
    drawn = [section(one.title, one.parts or [f'<p class="missing">{escape(one.missing)}</p>']) for one in sections(page)]
    title = f"{'Comparison' if page.several else 'Report'}: {names}"
    return document(title, [*figures, '<div class="sections">', *drawn, "</div>"])


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
