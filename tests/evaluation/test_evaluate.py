from functools import partialmethod
from io import StringIO

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

from recall.config import EvaluationConfig, parse_config
from recall.data.contexts import build_contexts
from recall.data.dataset import load_dataset
from recall.data.split import TEST, VALID
from recall.errors import ConfigError, DataError
from recall.evaluation.bootstrap import Estimate
from recall.evaluation.evaluate import EvaluationReport, evaluate
from recall.evaluation.protocol import HeldOutRequests, held_out
from recall.evaluation.report import render
from recall.features.encoder import FeatureEncoder
from recall.models.torch.base import SparseBatch
from recall.publish.export import export
from recall.serving.recommender import Recommender
from tests.conftest import TINY, random_model, write_tiny_tables


@pytest.fixture(scope="module", params=["none", "context", "user"])
def judged(request, tmp_path_factory):
    """A published random model with one mask: data, model and report."""
    folder = tmp_path_factory.mktemp("judged")
    write_tiny_tables(folder)
    config = parse_config({**TINY, "evaluation": {"mask": request.param, "at": [1, 3], "intervals": 50}})
    dataset = load_dataset(config, folder)
    encoder = FeatureEncoder.fit(dataset)
    model = random_model(encoder)
    export(model, encoder, dataset, config, folder / "bundles")
    recommender = Recommender.load(folder / "bundles")
    yield config, dataset, encoder, model, recommender, evaluate(recommender, dataset, config)
    recommender.close()


def text_of(report):
    text = StringIO()
    Console(file=text, width=160).print(render(report))
    return text.getvalue()


def test_recall_is_based_on_model_scores(judged):
    config, dataset, encoder, model, _, report = judged
    known = np.flatnonzero(dataset.events["split"].to_numpy() < TEST)
    held = held_out(dataset, config.evaluation, dataset.select(TEST), known)
    contexts = build_contexts(dataset, encoder, held.event)
    items = SparseBatch.of(encoder.encode_items(dataset.items), torch.float64)
    hits, popular_hits = [], []
    train_counts = np.bincount(dataset.events["item"].to_numpy()[dataset.training], minlength=len(dataset.items))
    model = model.double()
    for row in range(len(held)):
        users = contexts.features.take(np.full(len(dataset.items), contexts.context[row]))
        with torch.no_grad():
            scores = model.score(SparseBatch.of(users, torch.float64), items).numpy()
        for order, into in (
            (np.argsort(-scores, kind="stable"), hits),
            (np.argsort(-train_counts, kind="stable"), popular_hits),
        ):
            top = [item for item in order if item not in held.masked[row]][:3]
            into.append(len(set(top) & set(held.relevant[row].tolist())) / len(held.relevant[row]))
    model.float()
    assert report.model.metrics["recall@3"].value == pytest.approx(np.mean(hits))
    assert report.popularity.metrics["recall@3"].value == pytest.approx(np.mean(popular_hits))
    difference = report.comparison["recall@3"].difference.value
    assert difference == pytest.approx(np.mean(hits) - np.mean(popular_hits))


def test_the_report_describes_the_protocol(judged):
    config, dataset, _, _, recommender, report = judged
    assert (report.part, report.mask) == ("test", config.evaluation.mask)
    assert report.requests == report.relevant == len(dataset.select(TEST))
    assert report.users <= report.requests
    assert report.items == len(dataset.items)
    assert report.bundle == recommender.bundle.manifest.version
    assert report.exact
    assert report.found.value == 1.0
    if report.mask == "none":
        assert report.unreachable == 0


def test_every_metric_has_its_interval(judged):
    *_, report = judged
    for figures in (report.model, report.popularity):
        for name, figure in figures.metrics.items():
            assert figure.low <= figure.value <= figure.high, name
        assert 0 < figures.coverage["coverage@3"] <= 1
        assert 0 <= figures.gini["gini@3"] < 1


def test_the_report_round_trips_through_json(judged):
    *_, report = judged
    assert EvaluationReport.model_validate_json(report.model_dump_json()) == report


def test_the_table_names_every_metric_and_the_protocol(judged):
    *_, report = judged
    shown = text_of(report)
    for name in (*report.model.metrics, *report.model.coverage, *report.model.gini):
        assert name in shown
    assert f"{report.model.metrics['ndcg@3'].value:.4f}" in shown
    assert "100.0000% of the exact lists" in shown


def test_an_item_missing_in_the_bundle_is_a_counted_miss(judged, tmp_path):
    config, _, _, _, recommender, _ = judged
    folder = tmp_path / "later"
    folder.mkdir()
    write_tiny_tables(folder)
    events = pl.read_parquet(folder / "interactions.parquet")
    new = pl.DataFrame({**{name: [events[name][0]] for name in events.columns}, "item_id": ["brand new"], "time": [999]})
    pl.concat([events, new.select(events.columns).cast(dict(events.schema))]).write_parquet(folder / "interactions.parquet")
    dataset = load_dataset(config, folder)
    known = np.flatnonzero(dataset.events["split"].to_numpy() < TEST)
    held = held_out(dataset, config.evaluation, dataset.select(TEST), known)
    report = evaluate(recommender, dataset, config)
    assert report.unreachable == held.hidden.sum() + 1
    assert report.items == len(dataset.items) - 1


def test_items_only_in_the_bundle_keep_their_ranks(judged, tmp_path):
    """If the data lack an item, the bundle still returns it, and lower items do not move up."""
    config, dataset, _, _, recommender, _ = judged
    write_tiny_tables(tmp_path)
    asked = config.model_copy(update={"evaluation": EvaluationConfig(mask="none", at=(len(dataset.items),), intervals=0)})
    whole = evaluate(recommender, load_dataset(asked, tmp_path), asked)
    items = pl.read_parquet(tmp_path / "items.parquet").filter(pl.col("item_id") != "never")
    items.write_parquet(tmp_path / "items.parquet")
    fewer = load_dataset(asked, tmp_path)
    assert len(fewer.items) == len(dataset.items) - 1
    report = evaluate(recommender, fewer, asked)
    assert report.model.metrics == whole.model.metrics
    assert report.model.coverage == whole.model.coverage == {f"coverage@{len(dataset.items)}": 1.0}


def test_users_missing_in_the_bundle_are_counted(judged, tmp_path):
    config, _, _, _, recommender, report = judged
    assert report.strangers == 0
    assert report.context_columns == recommender.bundle.encoder.context_columns
    write_tiny_tables(tmp_path)
    events = pl.read_parquet(tmp_path / "interactions.parquet")
    events.with_columns(pl.col("user_id").replace({"u3": "someone"})).write_parquet(tmp_path / "interactions.parquet")
    assert evaluate(recommender, load_dataset(config, tmp_path), config).strangers == 1


def timeless(report):
    """Return the report without values that differ between runs."""
    values = report.model_dump(exclude={"seconds"})
    del values["dial"]["seconds"], values["cold"]["seconds"]
    return values


def test_model_metadata_are_consistent(judged):
    *_, report = judged
    (usual,) = [point for point in report.dial.points if point.popularity == 1]
    assert usual.recall.value == pytest.approx(report.model.metrics["recall@3"].value)
    for name, figure in report.cold.whole.items():
        assert figure.value == pytest.approx(report.model.metrics[name].value)
        assert report.cold.popularity[name] == report.popularity.metrics[name]
    assert report.dial.requests == report.cold.requests == report.requests


def test_the_number_of_repeated_requests_is_limited(judged):
    config, dataset, _, _, recommender, report = judged
    few = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"sample": 5})})
    again = evaluate(recommender, dataset, few)
    assert again.dial.requests == again.cold.requests == 5
    assert again.model == report.model


def test_chunking_does_not_change_results(judged, monkeypatch):
    config, dataset, _, _, recommender, report = judged
    monkeypatch.setattr(HeldOutRequests, "batches", partialmethod(HeldOutRequests.batches, 5))
    again = evaluate(recommender, dataset, config)
    assert timeless(again) == timeless(report)


def test_a_bundle_does_not_differ_from_itself(judged):
    config, dataset, _, _, recommender, report = judged
    again = evaluate(recommender, dataset, config, against=[recommender])
    assert again.rivals[0].model == report.model
    assert (again.rivals[0].unreachable, again.rivals[0].strangers) == (report.unreachable, report.strangers)
    for compared in again.rivals[0].comparison.values():
        assert compared.difference == Estimate(value=0, low=0, high=0)
        assert compared.verdict == "undecided"
    assert "better" not in text_of(again)
    assert "undecided" in text_of(again)
    assert report.rivals == ()


def test_another_bundle_gets_the_same_requests(judged, tmp_path):
    config, dataset, _, _, recommender, report = judged
    few = {name: config.fields[name] for name in ("gender", "item_id")}
    other_config = config.model_copy(update={"fields": few})
    folder = tmp_path / "tables"
    folder.mkdir()
    write_tiny_tables(folder)
    smaller = load_dataset(other_config, folder)
    fitted = FeatureEncoder.fit(smaller)
    export(random_model(fitted, seed=9), fitted, smaller, other_config, tmp_path / "bundles")
    other = Recommender.load(tmp_path / "bundles")
    alone = evaluate(other, dataset, config)
    compared = evaluate(recommender, dataset, config, against=[other])
    other.close()
    assert compared.rivals[0].bundle == alone.bundle
    assert compared.rivals[0].model == alone.model
    for name, one in compared.rivals[0].comparison.items():
        difference = report.model.metrics[name].value - alone.model.metrics[name].value
        assert one.difference.value == pytest.approx(difference)
    assert timeless(compared.model_copy(update={"rivals": ()})) == timeless(report)


def test_ablation_runs_on_request(judged):
    config, dataset, _, _, recommender, report = judged
    asked = evaluate(recommender, dataset, config, ablated=True)
    assert report.ablation is None
    assert "without each field" not in text_of(report)
    shown = text_of(asked)
    for worth in asked.ablation.fields:
        assert f"{worth.metrics['ndcg@3'].value:.4f}" in shown
        assert asked.ablation.whole["recall@3"].value == pytest.approx(report.model.metrics["recall@3"].value)
    assert EvaluationReport.model_validate_json(asked.model_dump_json()) == asked


def test_the_report_describes_the_requests(judged):
    config, *_, report = judged
    assert config.evaluation.request == "context"
    assert report.request == "row"  # each row has a different history


def test_invalid_evaluations_are_refused(judged, tmp_path):
    *_, recommender, _ = judged
    for at in ([5, 2000], [0], []):
        with pytest.raises(ConfigError, match=r"evaluation\.at"):
            parse_config({**TINY, "evaluation": {"at": at}})
    write_tiny_tables(tmp_path)
    unsplit = parse_config({**TINY, "data": {**TINY["data"], "split": {"by": "none"}}})
    with pytest.raises(DataError, match="no interaction is held out to evaluate on"):
        evaluate(recommender, load_dataset(unsplit, tmp_path), unsplit, VALID)
