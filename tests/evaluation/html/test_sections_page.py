"""The report in a real browser, and its texts."""

import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from recall.evaluation.html.charts import Bars, Lines
from recall.evaluation.html.sections import render, sections
from recall.evaluation.html.subject import Subject, Subjects
from recall.serving.recommender import Recommender
from tests.evaluation.html.conftest import Judged

SECTIONS = [
    "Quality",
    "Learning curves",
    "Popularity dial",
    "Cold start",
    "What each field is worth",
    "Strength of field pairs",
    "Item map",
    "Index: recall against speed",
    "Calibration",
    "Latency",
]


@pytest.fixture(scope="module")
def report(judged: Judged) -> str:
    with Recommender.load(judged.root) as recommender:
        return render([Subject.of(recommender, judged.evaluation)])


@pytest.fixture(scope="module")
def comparison(judged: Judged) -> str:
    with Recommender.load(judged.root) as recommender:
        subject = Subject.of(recommender, judged.evaluation)
    return render([subject, subject], judged.evaluation.comparison)


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_nothing_is_loaded_and_no_script_runs(report: str) -> None:
    tags = Tags(report).found
    names = {tag for tag, _ in tags}
    assert not names & {"script", "img", "link", "iframe", "object", "a", "image"}
    for _, attributes in tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "href")]
        assert (attributes.get("xlink:href") or "#").startswith("#")
    assert "url(http" not in report


def test_figures_are_those_of_the_evaluation(report: str, judged: Judged) -> None:
    metric = judged.evaluation.model.metrics["recall@3"]
    row = re.search(r"<td>recall@3</td><td>([^<]*)</td><td>([^<]*)</td>", report)
    assert row is not None
    assert row[1] == f"{metric.value:.4f} [{metric.low:.4f}, {metric.high:.4f}]"
    assert row[2].startswith(f"{judged.evaluation.popularity.metrics['recall@3'].value:.4f} ")
    assert "<td>square loss</td><td>0.3000 [0.2000, 0.4000]</td><td>2</td><td>1.5</td>" in report


def test_a_section_without_data_says_why(report: str, recommender: Recommender) -> None:
    assert [re.sub("<.*?>", "", one) for one in re.findall("<h2>.*?</h2>", report)] == SECTIONS
    assert '<p class="missing">Scores are not probabilities: the model was not trained by log loss.' in report
    bare = render([Subject.of(recommender)])
    assert bare.count("No evaluation is given") == 4
    assert "Training recorded none, and no ablation was requested" in bare


def test_what_training_found_of_each_field_is_shown_without_an_evaluation(recommender: Recommender) -> None:
    subject = Subject.of(recommender, timed=False)
    metrics = {"fields": [{"name": "age", "loss": -0.01, "helps": False}, {"name": "category", "loss": 0.02, "helps": True}]}
    of = replace(subject, manifest=subject.manifest.model_copy(update={"metrics": metrics}))
    shown = {one.title: one for one in sections(Subjects([of], {}))}
    (bars, _) = shown["What each field is worth"].parts
    assert isinstance(bars, Bars)
    assert [(one.name, one.value, one.colour) for one in bars.bars] == [("category", -0.02, "s0"), ("age", 0.01, "muted")]
    assert shown["Latency"].missing.startswith("Not measured here")


def test_a_run_without_a_validation_part_names_no_race(recommender: Recommender) -> None:
    subject = Subject.of(recommender)
    metrics = {"curve": {"losses": [2.0, 1.0], "figures": [None, None], "best_sweep": 2}}

    def page(metrics: dict) -> str:
        return render([replace(subject, manifest=subject.manifest.model_copy(update={"metrics": metrics}))])

    assert "There was no validation part, so all sweeps were run." in page(metrics)
    assert "the race has chosen the number of sweeps" in page({**metrics, "race": {"winner": "square loss"}})


@pytest.mark.parametrize(("further", "losses"), [({}, [1.0]), ({"growth": {}}, [2.0, 1.0])])
def test_the_loss_of_an_opening_is_left_out_where_there_was_one(recommender: Recommender, further: dict, losses: list) -> None:
    subject = Subject.of(recommender, timed=False)
    manifest = subject.manifest.model_copy(
        update={"metrics": {"curve": {"losses": [2.0, 1.0]}, **further}, "config": {"train": {"opening": {}}}}
    )
    shown = {one.title: one for one in sections(Subjects([replace(subject, manifest=manifest)], {}))}
    lines = shown["Learning curves"].parts[0]
    assert isinstance(lines, Lines)
    assert list(lines.lines[0].y) == losses


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["report", "comparison"])
def test_it_shows_in_both_widths_and_colour_schemes(
    kind: str, request: pytest.FixtureRequest, browser: Browser, tmp_path: Path
) -> None:
    path = tmp_path / f"{kind}.html"
    path.write_text(request.getfixturevalue(kind), encoding="utf-8")
    inks = set()
    for scheme in ("light", "dark"):
        for width in (360, 1280):
            with browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme) as context:
                page = context.new_page()
                said: list[str] = []
                asked: list[str] = []
                page.on("console", lambda message, said=said: said.append(message.text))
                page.on("pageerror", lambda error, said=said: said.append(str(error)))
                page.on("request", lambda one, asked=asked: asked.append(one.url))
                page.goto(path.as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                assert page.evaluate(
                    "[...document.querySelectorAll('svg')].every(one => one.getBoundingClientRect().width > 200)"
                )
                assert page.evaluate("document.querySelectorAll('svg').length") >= 12
                assert page.evaluate("window.taken") is None
                titles = page.evaluate("[...document.querySelectorAll('use title')].map(one => one.textContent)")
                assert "<script>window.taken = 1</script>" in titles
                inks.add((scheme, page.evaluate("getComputedStyle(document.querySelector('svg text')).fill")))
                page.screenshot(path=tmp_path / f"{kind}-{width}-{scheme}.png", full_page=True)
                assert (said, asked) == ([], [path.as_uri()])
    assert len(inks) == len({ink for _, ink in inks}) == 2


def test_without_the_library_the_error_says_how_to_install_it(
    run, judged: Judged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ended = run("report", judged.root, "--out", tmp_path / "report.html")
    assert ended.code == 69
    assert "pip install 'fm-recall[report]'" in ended.err
