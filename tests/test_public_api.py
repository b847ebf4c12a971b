"""The public names of `import recall`, and what the import loads."""

import subprocess
import sys
from pathlib import Path

import pytest

import recall
from recall import errors
from recall.serving import recommender

ROOT = Path(__file__).parent.parent
PUBLIC = [
    *("Absence",),
    *("BundleError",),
    *("CatalogueItem", "Channels", "ConfigError", "Contribution"),
    *("DataError", "Dedupe", "Degraded", "Diversify"),
    *("EvaluationReport", "Explanation", "ExportError"),
    *("FeatureValue",),
    *("IndexDownError", "IndexFileError", "Interaction"),
    *("JournalBusyError", "JournalDamagedError", "JournalDownError", "JournalError"),
    *("JournalFullError", "JournalReadOnlyError"),
    *("LatestChannel", "ListChannel"),
    *("Model", "ModelChannel"),
    *("Page", "Pin", "PopularChannel", "Prediction", "PublishBusyError", "PublishError"),
    *("Quota",),
    *("Reason", "RecallError", "Recommendations", "Recommender", "Request", "RequestError", "RunConfig"),
    *(
        "ScoredItem",
        "Scores",
        "Similar",
        "Source",
        "StoreBusyError",
        "StoreDownError",
        "StoreError",
        "StoreFullError",
        "StoreReadOnlyError",
        "TokenError",
    ),
    *("TrainingError", "TrainingInterruptedError"),
    *("User", "UserVector"),
    *("ValueContribution",),
    *("VersionMovedError",),
    *("fit", "load", "load_config"),
]


def test_the_public_names_are_fixed() -> None:
    assert recall.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(recall))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(recall, name).__name__ == name


def test_public_names_are_the_original_objects() -> None:
    assert recall.Recommender is recommender.Recommender
    assert recall.PublishBusyError is errors.PublishBusyError


def test_every_error_of_the_library_is_public() -> None:
    defined = {name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, errors.RecallError)}
    assert defined <= set(PUBLIC)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Recomender'"):
        recall.Recomender  # noqa: B018


@pytest.mark.parametrize(
    ("statement", "absent"),
    [("import recall", "numpy polars pydantic torch faiss"), ("from recall import Recommender", "torch fastapi typer")],
)
def test_importing_loads_only_what_is_needed(statement: str, absent: str) -> None:
    checked = f"import sys; {statement}; print(sorted(set({absent.split()}) & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", checked], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.strip() == "[]"
