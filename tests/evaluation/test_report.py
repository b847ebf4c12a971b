from io import StringIO

import pytest
from rich.console import Console

from recall.evaluation.bootstrap import Comparison, Estimate
from recall.evaluation.calibration import Bin, Calibration, Discrimination
from recall.evaluation.cold_start import ColdStart, Masked
from recall.evaluation.evaluate import EvaluationReport, ListFigures, Rival
from recall.evaluation.hold_out import BaselineResult, HeldOutItems, HeldOutUsers
from recall.evaluation.offline import Dial, DialPoint
from recall.evaluation.report import render

BARE = {"recall@10": Estimate(value=0.5, low=0.45, high=0.6)}
COLD = ColdStart(
    requests=300,
    users=200,
    whole=BARE,
    popularity={"recall@10": Estimate(value=0.25)},
    new_items=None,
    new_users=Masked(fields=("user_id", "user_by_hour"), metrics={"recall@10": Estimate(value=0.375)}, comparison={}),
    history_only=None,
    seconds=0.25,
)


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
        "dial": None,
        "cold": COLD,
        "seconds": 12.34,
    }
    return EvaluationReport.model_validate(values | changes)


def lines_of(report):
    text = StringIO()
    Console(file=text, width=160).print(render(report))
    return text.getvalue().splitlines()


def test_a_row_shows_both_values_and_their_difference():
    lines = lines_of(report_of())
    assert lines[0].startswith("test part, bundle 000007-abcdef01")
    line = next(line for line in lines if "recall@10" in line)
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


def test_only_notable_facts_are_reported():
    plain = " ".join(lines_of(report_of()))
    assert "missed" not in plain
    assert "does not hold" not in plain
    odd = lines_of(report_of(unreachable=12, strangers=1234, exact=False))
    assert "12 of 3,387 relevant items are masked or not in the catalogue, and count as missed." in odd
    assert "1,234 requests are of users that the bundle does not hold." in odd
    assert any(line.startswith("The index is approximate") for line in odd)


def test_context_columns_of_held_out_rows_are_always_named():
    assert "Context columns read from the held-out row: none." in lines_of(report_of())
    lines = lines_of(report_of(context_columns=("device", "hour")))
    assert (
        "Context columns read from the held-out row: device, hour. Requests must contain them, known before an item is chosen."
        in lines
    )


def test_reports_without_resamples_and_with_a_zero_baseline():
    bare = Estimate(value=0.5)
    line, *_ = [
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


def test_cold_start_is_compared_with_the_model_and_popularity():
    lines = lines_of(report_of())
    head = next(row for row, line in enumerate(lines) if "cold start" in line)
    assert [cell.strip() for cell in lines[head + 2].strip("┃").split("┃")] == ["metric", "model", "new users", "popularity"]
    (line,) = [line for line in lines[head:] if "recall@10" in line]
    assert [cell.strip() for cell in line.strip("│").split("│")] == ["recall@10", "0.5000 ± 0.0750", "0.3750", "0.2500"]
    assert "new users: masked are user_id, user_by_hour." in lines
    assert "No item field reads the id: a new item is scored as any other with the same features." in lines
    assert not any("No user field" in line for line in lines)
    assert lines[head].strip() == "simulated cold start: the same requests with ids masked"
    assert "A simulation: the model was trained on these very items and users, and only their ids are masked." in lines
    assert any("""--set 'data.split={by="users"}' or --set 'data.split={by="items"}'""" in line for line in lines)
    assert report_of().model_dump(mode="json")["cold"]["simulated"] is True


def compared(value, low, high):
    return Comparison(difference=Estimate(value=value, low=low, high=high), ratio=None)


def test_held_out_users_are_grouped_by_the_known_data():
    figure = Estimate(value=0.25, low=0.2, high=0.3)
    way = BaselineResult(metrics={"ndcg@20": figure}, comparison={"ndcg@20": compared(0.125, 0.0625, 0.1875)})
    held = HeldOutUsers(
        requests=1200,
        users=400,
        popularity={"ndcg@20": Estimate(value=0.125, low=0.1, high=0.15)},
        unknown=way,
        features=None,
        history=way,
        seconds=0.5,
    )
    lines = lines_of(report_of(cold=None, held_out_users=held))
    head = next(row for row, line in enumerate(lines) if line.startswith("held-out users"))
    assert [line.rstrip() for line in lines[head:]] == GOLDEN_USERS.strip("\n").split("\n")
    assert not any("simulated" in line for line in lines)


def test_held_out_items_are_compared_with_content():
    figure = Estimate(value=0.25, low=0.2, high=0.3)
    beside = BaselineResult(metrics={"recall@20": figure}, comparison={"recall@20": compared(-0.125, -0.1875, -0.0625)})
    held = HeldOutItems(
        requests=1200,
        users=400,
        new=1192,
        items=11924,
        model={"recall@20": Estimate(value=0.125, low=0.1, high=0.15)},
        popularity=BaselineResult(metrics={"recall@20": Estimate(value=0.0)}, comparison={}),
        content=beside,
        k=20,
        k_new=2,
        among_all=Estimate(value=0.125, low=0.1, high=0.15),
        among_new=Estimate(value=0.25, low=0.2, high=0.3),
        ratio=Estimate(value=0.5, low=0.4, high=0.6),
        seconds=0.5,
    )
    lines = lines_of(report_of(cold=None, held_out_items=held))
    head = next(row for row, line in enumerate(lines) if line.startswith("held-out items"))
    assert [line.rstrip() for line in lines[head:]] == GOLDEN_ITEMS.strip("\n").split("\n")
    bare = lines_of(report_of(cold=None, held_out_items=held.model_copy(update={"content": None, "ratio": None})))
    assert "their ratio: none" in bare
    assert "No item field reads anything but the id: nothing is known of a new item." in bare


def test_the_popularity_curve_is_a_separate_table():
    point = DialPoint(popularity=0.5, recall=Estimate(value=0.25, low=0.2, high=0.3), coverage=0.125)
    lines = lines_of(report_of(dial=Dial(k=20, requests=300, points=(point,), seconds=0.1)))
    (line,) = [line for line in lines if "0.1250" in line]
    assert [cell.strip() for cell in line.strip("│").split("│")] == ["0.5", "0.2500 [0.2000, 0.3000]", "0.1250"]
    assert not any("dial" in line for line in lines_of(report_of()))


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.01, 0.2, "better"), (-0.2, -0.01, "worse"), (-0.01, 0.2, "undecided"), (0, 1, "undecided")],
)
def test_better_requires_an_interval_that_excludes_0(low, high, word):
    compared = Comparison(difference=Estimate(value=(low + high) / 2, low=low, high=high), ratio=None)
    figures = {"recall@10": Estimate(value=0.6), "novelty@10": Estimate(value=5.0)}
    model = ListFigures(metrics=figures, coverage={}, gini={})
    rival = Rival(
        bundle="000009-ffffffff",
        unreachable=4,
        strangers=0,
        exact=True,
        model=model,
        comparison={"recall@10": compared, "novelty@10": compared},
    )
    base = ListFigures(metrics={**figures}, coverage={}, gini={})
    comparison = {"recall@10": compared, "novelty@10": compared}
    lines = lines_of(report_of(model=base, popularity=base, comparison=comparison, rivals=(rival,)))
    head = next(row for row, line in enumerate(lines) if "against 000009-ffffffff" in line)
    recall, novelty = [line.strip("│").split("│") for line in lines[head:] if line.startswith("│")][:2]
    assert recall[-1].strip() == word
    assert novelty[-1].strip() == {"better": "higher", "worse": "lower"}.get(word, word)
    assert "4 relevant items are masked or not in the catalogue of 000009-ffffffff." in lines


@pytest.mark.parametrize("source", ["labels", "draws"])
def test_classification_metrics_are_a_separate_table_with_their_source(source):
    judged = Discrimination(
        source=source,
        power=None if source == "labels" else 0.5,
        rows=200,
        taken=120,
        users=30,
        left_out=7,
        auc=Estimate(value=0.75, low=0.7, high=0.8),
        gauc=None,
        gauc_users=0,
        calibration=Calibration(
            log_loss=Estimate(value=0.5),
            constant=0.673,
            error=Estimate(value=0.02),
            bins=(Bin(rows=20, predicted=0.1, observed=0.15),),
        ),
        seconds=0.1,
    )
    lines = lines_of(report_of(discrimination=judged))
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    assert ["AUC", "0.7500 [0.7000, 0.8000]"] in cells
    assert ["log loss of the mean rate", "0.6730"] in cells
    assert ["of 20 rows", "predicted 0.1000, observed 0.1500"] in cells
    assert not any("GAUC" in line for line in lines)
    assert ("Those that were not taken are the rows of label 0." in lines) == (source == "labels")
    assert any("to the power 0.5" in line for line in lines) == (source == "draws")
    assert "7 rows could not be scored." in lines


@pytest.mark.parametrize("field", ["part", "mask", "request"])
def test_a_report_validates_its_values(field):
    with pytest.raises(ValueError, match=field):
        report_of(**{field: "other"})


GOLDEN_USERS = """
held-out users: none of their interactions trained
┏━━━━━━━━━┳━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━┓
┃ metric  ┃      popularity ┃         unknown ┃      by history ┃
┡━━━━━━━━━╇━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━┩
│ ndcg@20 │ 0.1250 ± 0.0250 │ 0.2500 ± 0.0500 │ 0.2500 ± 0.0500 │
└─────────┴─────────────────┴─────────────────┴─────────────────┘

difference to popularity
┏━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━┓
┃ metric  ┃                    unknown ┃                 by history ┃
┡━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━┩
│ ndcg@20 │ +0.1250 [+0.0625, +0.1875] │ +0.1250 [+0.0625, +0.1875] │
└─────────┴────────────────────────────┴────────────────────────────┘
Exact lists of 1,200 requests of 400 users, straight from the vectors; ± is half a 95 % interval. 0.5 s.
unknown: requests with an unknown user id and nothing else.
by history: requests with the history alone.
"""
GOLDEN_ITEMS = """
held-out items: none of their interactions trained
┏━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━┓
┃ metric    ┃           model ┃ popularity ┃         content ┃            model - content ┃
┡━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━┩
│ recall@20 │ 0.1250 ± 0.0250 │     0.0000 │ 0.2500 ± 0.0500 │ -0.1250 [-0.1875, -0.0625] │
└───────────┴─────────────────┴────────────┴─────────────────┴────────────────────────────┘
Exact lists of 1,200 requests of 400 users, straight from the vectors; ± is half a 95 % interval. 0.5 s.
m = 1,192 new items among n = 11,924 items.
recall@20 among all n: 0.1250 [0.1000, 0.1500]
recall@2 among the m new ones alone, round(20 m / n): 0.2500 [0.2000, 0.3000]
their ratio: 0.5000 [0.4000, 0.6000]
content: cosine between an item's features and the sum over the user's training items.
"""
