from io import StringIO

import pytest
from rich.console import Console

from recall.evaluation.bootstrap import Comparison, Estimate
from recall.evaluation.evaluate import EvaluationReport, ListFigures
from recall.evaluation.report import render


def report_of(**changes):
    values = {
        "bundle": "000007-abcdef01",
        "part": "test",
        "mask": "context",
        "request": "row",
        "requests": 3387,
        "users": 500,
        "items": 4082,
        "relevant": 3387,
        "unreachable": 0,
        "strangers": 0,
        "exact": True,
        "found": Estimate(value=1.0, low=1.0, high=1.0),
        "model": ListFigures(
            metrics={"recall@10": Estimate(value=0.7163, low=0.7, high=0.73)},
            coverage={"coverage@10": 0.25},
            gini={"gini@10": 0.9},
        ),
        "popularity": ListFigures(
            metrics={"recall@10": Estimate(value=0.3493, low=0.33, high=0.36)},
            coverage={"coverage@10": 0.01},
            gini={"gini@10": 0.99},
        ),
        "comparison": {
            "recall@10": Comparison(
                difference=Estimate(value=0.367, low=0.35, high=0.38), ratio=Estimate(value=2.05, low=1.9, high=2.2)
            )
        },
        "seconds": 12.34,
    }
    return EvaluationReport.model_validate(values | changes)


def lines_of(report):
    text = StringIO()
    Console(file=text, width=160).print(render(report))
    return text.getvalue().splitlines()


def test_one_line_holds_a_metric_of_both_and_how_they_differ():
    lines = lines_of(report_of())
    assert lines[0].startswith("test part, bundle 000007-abcdef01")
    (line,) = [line for line in lines if "recall@10" in line]
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells == [
        "recall@10",
        "0.7163 [0.7000, 0.7300]",
        "0.3493 [0.3300, 0.3600]",
        "+0.3670 [+0.3500, +0.3800]",
        "2.05 x",
    ]
    (line,) = [line for line in lines if "coverage@10" in line]
    assert [cell.strip() for cell in line.strip("│").split("│")] == ["coverage@10", "0.2500", "0.0100", "+0.2400", ""]
    assert (
        "3,387 requests of 500 users over 4,082 items: each row is a request, items known in the same context are masked."
        in lines
    )
    assert "The index is exact: it returned 100.0000% of the exact lists. 12.3 s." in lines


def test_what_is_odd_is_said_and_what_is_not_is_left_out():
    plain = " ".join(lines_of(report_of()))
    assert "missed" not in plain
    assert "does not hold" not in plain
    odd = lines_of(report_of(unreachable=12, strangers=1234, exact=False))
    assert "12 of 3,387 relevant items are masked or not in the catalogue, and count as missed." in odd
    assert "1,234 requests are of users that the bundle does not hold." in odd
    assert any(line.startswith("The index is approximate") for line in odd)


def test_without_resamples_and_beside_a_baseline_of_zero():
    bare = Estimate(value=0.5)
    (line,) = [
        line
        for line in lines_of(
            report_of(
                model=ListFigures(metrics={"recall@10": bare}, coverage={}, gini={}),
                popularity=ListFigures(metrics={"recall@10": Estimate(value=0.0)}, coverage={}, gini={}),
                comparison={"recall@10": Comparison(difference=bare, ratio=None)},
            )
        )
        if "recall@10" in line
    ]
    assert [cell.strip() for cell in line.strip("│").split("│")] == ["recall@10", "0.5000", "0.0000", "+0.5000", ""]


@pytest.mark.parametrize("field", ["part", "mask", "request"])
def test_a_report_holds_only_what_can_be(field):
    with pytest.raises(ValueError, match=field):
        report_of(**{field: "other"})
