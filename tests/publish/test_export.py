import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recall.bundle.manifest import Manifest
from recall.bundle.versions import resolve, versions
from recall.config import ExportConfig, RunConfig, parse_config
from recall.data.dataset import Dataset, load_dataset
from recall.errors import ExportError
from recall.features.encoder import EncodedUser, FeatureEncoder
from recall.models.torch.base import Model, SparseBatch
from recall.models.torch.ffm import FieldAwareFM
from recall.models.torch.fm import FactorizationMachine
from recall.models.torch.registry import new_model
from recall.publish.export import ExportReport, export
from recall.serving.recommender import Recommender, Request
from tests.conftest import TINY, drawn, random_model


@dataclass(frozen=True)
class Trained:
    """The inputs of an export."""

    model: Model
    encoder: FeatureEncoder
    dataset: Dataset
    config: RunConfig

    def export(self, root: Path) -> ExportReport:
        return export(self.model, self.encoder, self.dataset, self.config, root, {"recall@10": 0.25})


@pytest.fixture
def trained(
    tiny_model: FactorizationMachine, tiny_encoder: FeatureEncoder, tiny_dataset: Dataset, tiny_config: RunConfig
) -> Trained:
    return Trained(tiny_model, tiny_encoder, tiny_dataset, tiny_config)


def test_every_pair_of_a_sample_is_checked(trained: Trained, tmp_path: Path) -> None:
    report = trained.export(tmp_path)
    manifest = Manifest.read(report.folder)
    assert report.folder == resolve(tmp_path)
    assert report.manifest == manifest
    assert manifest.parity.reference == "model"
    assert (manifest.parity.users, manifest.parity.items) == (len(trained.dataset.events), len(trained.dataset.items))
    assert 0 < manifest.parity.largest_error < 1e-5
    assert manifest.metrics == {"recall@10": 0.25}
    assert manifest.config == trained.config.model_dump(mode="json", by_alias=True)
    assert manifest.libraries.keys() >= {"numpy", "torch", "faiss-cpu"}
    assert manifest.index.queries > 0
    assert set(report.seconds) == {"encode", "vectors", "write", "index", "proof", "publish"}


@pytest.mark.parametrize("k", [0, 1, 7, 8])
def test_parity_holds_for_any_number_of_factors(trained: Trained, tmp_path: Path, k: int) -> None:
    replace(trained, model=random_model(trained.encoder, k)).export(tmp_path)
    recommender = Recommender.load(tmp_path)
    assert len(recommender.recommend(Request("u1", n=3)).items) == 3
    recommender.close()
    assert recommender.bundle.manifest.sizes.dim == k + 1


KINDS = [
    {"kind": "lr"},
    *({"kind": kind, "k": 3, "cosine": cosine} for kind in ("fm", "fwfm", "ffm") for cosine in (False, True)),
]


@pytest.mark.parametrize("model", KINDS, ids=lambda model: " ".join(map(str, model.values())))
def test_every_kind_of_model_is_checked_published_and_served(trained: Trained, tmp_path: Path, model: dict[str, Any]) -> None:
    encoder, values = trained.encoder, {**TINY, "model": model, "train": {"objective": "softmax"}}
    config = parse_config(values)
    random = drawn(new_model(config.model, encoder.user_fields, encoder.item_fields))
    report = replace(trained, model=random, config=config).export(tmp_path)
    record = report.manifest.model
    assert (record.kind, record.cosine) == (model["kind"], model.get("cosine", False))
    assert record.user_fields == encoder.user_fields.names
    assert record.item_fields == encoder.item_fields.names
    assert 0 <= report.manifest.parity.largest_error < 1e-5
    recommender = Recommender.load(tmp_path)
    answer = recommender.recommend(Request(user_id="u1", context={"device": "tv"}, n=3))
    assert len(answer.items) == 3
    dim = config.model.dim(len(encoder.user_fields), len(encoder.item_fields))
    assert recommender.bundle.item_vectors.shape == (len(trained.dataset.items), dim)
    recommender.close()


def test_dropping_singular_values_reports_the_loss(trained: Trained, tmp_path: Path) -> None:
    encoder = trained.encoder
    errors = []
    for rank in (1, 2, 4):
        config = parse_config({**TINY, "model": {"kind": "fwfm", "k": 3, "rank": rank}, "train": {"objective": "softmax"}})
        random = drawn(new_model(config.model, encoder.user_fields, encoder.item_fields))
        manifest = replace(trained, model=random, config=config).export(tmp_path).manifest
        fold = manifest.model.fold
        assert fold is not None
        assert (fold.rank, manifest.sizes.dim) == (rank, rank * 3 + 1)
        assert manifest.parity.largest_error < 1e-5  # the check uses the model with dropped singular values
        errors.append((fold.lost, fold.score_error))
    assert errors[0] > errors[1] > errors[2]
    assert errors[1][1] > 1e-3
    assert errors[2] == (pytest.approx(0, abs=1e-6), pytest.approx(0, abs=1e-6))  # there are four item fields


def test_non_finite_field_weights_are_named(trained: Trained, tmp_path: Path) -> None:
    encoder = trained.encoder
    config = parse_config({**TINY, "model": {"kind": "fwfm", "k": 3}, "train": {"objective": "softmax"}})
    random = drawn(new_model(config.model, encoder.user_fields, encoder.item_fields))
    random.get_parameter("field_weights").data[2, 5] = float("inf")
    with pytest.raises(ExportError, match="array 'field_weights' holds NaN or an infinity in 2 of 13 rows"):
        replace(trained, model=random, config=config).export(tmp_path)
    assert versions(tmp_path) == []


def test_a_non_finite_user_feature_outside_the_sample_is_found(trained: Trained, tmp_path: Path) -> None:
    with torch.no_grad():
        trained.model.user_factors[0, 1] = float("nan")  # the row of unknown users
    with pytest.raises(ExportError, match="array 'user_factors' holds NaN or an infinity in 1 of"):
        trained.export(tmp_path)
    assert versions(tmp_path) == []


class Skewed(FactorizationMachine):
    """A model whose score does not match its tables."""

    def score(self, users: SparseBatch, items: SparseBatch) -> torch.Tensor:
        return super().score(users, items) + 0.01


class SkewedFields(FieldAwareFM):
    """A model with fields: its definition is evaluated for some items of every user."""

    def score(self, users: SparseBatch, items: SparseBatch) -> torch.Tensor:
        return super().score(users, items) + 0.01


class Forgetful(FeatureEncoder):
    """An encoder that reads histories in bulk and not in requests."""

    def encode_user(self, values: Mapping[str, object], history: Sequence[str] = ()) -> EncodedUser:
        return super().encode_user(values, ())


def check_nothing_more_was_published(root: Path) -> None:
    assert [one.name[:6] for one in versions(root)] == ["000001"]
    assert resolve(root) == versions(root)[0]
    assert list((root / "staging").iterdir()) == []


@pytest.mark.parametrize("made", [Skewed, SkewedFields])
def test_a_model_that_fails_the_parity_check_is_not_published(trained: Trained, tmp_path: Path, made: type[Model]) -> None:
    trained.export(tmp_path)
    users, items = trained.encoder.user_fields, trained.encoder.item_fields
    fields = (len(users), len(items)) if made is SkewedFields else ()
    skewed = drawn(made(users.n_features, items.n_features, 4, *fields))
    with pytest.raises(ExportError, match="Nothing was published"):
        replace(trained, model=skewed).export(tmp_path)
    check_nothing_more_was_published(tmp_path)


def test_a_request_encoding_mismatch_prevents_publication(trained: Trained, tmp_path: Path) -> None:
    trained.export(tmp_path)
    encoder = trained.encoder
    forgetful = Forgetful(encoder.schema, encoder.context_columns, encoder.columns, encoder.histories)
    with pytest.raises(ExportError, match="Nothing was published"):
        replace(trained, encoder=forgetful).export(tmp_path)
    check_nothing_more_was_published(tmp_path)


def test_non_finite_items_are_named(trained: Trained, tmp_path: Path) -> None:
    row = trained.encoder.encode_items(trained.dataset.items).take(np.array([4])).indices[0]
    with torch.no_grad():
        trained.model.item_weights[int(row)] = float("nan")
    with pytest.raises(ExportError, match="hold NaN or an infinity") as raised:
        trained.export(tmp_path)
    assert "'i4'" in raised.value.where
    assert versions(tmp_path) == []


def test_vectors_whose_scores_overflow_are_named(trained: Trained, tmp_path: Path) -> None:
    row = trained.encoder.encode_items(trained.dataset.items).take(np.array([4])).indices[0]
    with torch.no_grad():
        trained.model.item_weights[int(row)] = 1e20
    with pytest.raises(ExportError, match="too large to be scored") as raised:
        trained.export(tmp_path)
    assert "'i4'" in raised.value.where
    assert versions(tmp_path) == []


def test_a_tolerance_below_rounding_fails(trained: Trained, tmp_path: Path) -> None:
    config = trained.config.model_copy(update={"export": ExportConfig(tolerance=1e-12)})
    with pytest.raises(ExportError, match="relative error"):
        replace(trained, config=config).export(tmp_path)
    assert versions(tmp_path) == []


def test_two_exports_are_byte_identical(trained: Trained, tmp_path: Path) -> None:
    one, two = (trained.export(tmp_path).manifest for _ in range(2))
    assert one.files == two.files
    assert (one.sequence, two.sequence) == (1, 2)


def test_a_schema_without_context_or_history_passes_the_check(tiny_folder: Path, tmp_path: Path) -> None:
    fields = {name: TINY["fields"][name] for name in ("user_id", "item_id", "category")}
    config = parse_config({**TINY, "fields": fields})
    dataset = load_dataset(config, tiny_folder)
    encoder = FeatureEncoder.fit(dataset)
    parity = export(random_model(encoder), encoder, dataset, config, tmp_path / "bundles").manifest.parity
    assert parity.users > 1
    assert parity.largest_error < 1e-5


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from recall.bundle.versions import resolve, versions
from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.errors import RecallError
from recall.publish.export import export
from recall.features.encoder import FeatureEncoder
from tests.conftest import TINY, drawn, random_model, write_tiny_tables

folder = Path(sys.argv[1])
write_tiny_tables(folder)
config = parse_config(TINY)
dataset = load_dataset(config, folder)
encoder = FeatureEncoder.fit(dataset)
model = random_model(encoder)
first = export(model, encoder, dataset, config, folder / "root").folder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
usual = resource.getrlimit(resource.RLIMIT_FSIZE)
for size in sorted({path.stat().st_size - 1 for path in first.iterdir()}):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
    try:
        export(model, encoder, dataset, config, folder / "root")
    except RecallError as error:
        print(type(error).__name__)
    resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert versions(folder / "root") == [first] and resolve(folder / "root") == first
    assert list((folder / "root" / "staging").iterdir()) == []
export(model, encoder, dataset, config, folder / "root")
"""


@pytest.mark.slow
def test_a_disk_full_at_any_file_publishes_nothing(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.split()) >= 7
    assert set(ended.stdout.split()) <= {"PublishError", "IndexFileError"}
    assert len(versions(tmp_path / "root")) == 2
