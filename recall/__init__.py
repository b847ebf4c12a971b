"""Factorization-machine recall: train, export exact vectors, serve the top n.

Public names are imported on first access, so that `import recall` is quick and serving never loads torch.
"""

TYPE_CHECKING = False  # as in `typing`, whose import takes longer than printing the help of the command line
if TYPE_CHECKING:
    from recall.api.fit import fit
    from recall.api.model import Model, load
    from recall.config import RunConfig, load_config
    from recall.errors import (
        BundleError,
        ConfigError,
        DataError,
        ExportError,
        IndexDownError,
        IndexFileError,
        JournalBusyError,
        JournalDamagedError,
        JournalDownError,
        JournalError,
        JournalFullError,
        JournalReadOnlyError,
        PublishBusyError,
        PublishError,
        RecallError,
        RequestError,
        StoreBusyError,
        StoreDownError,
        StoreError,
        StoreFullError,
        StoreReadOnlyError,
        TokenError,
        TrainingError,
        TrainingInterruptedError,
        VersionMovedError,
    )
    from recall.evaluation.evaluate import EvaluationReport
    from recall.serving.recommender import Recommender
    from recall.serving.request import (
        Absence,
        CatalogueItem,
        Contribution,
        Explanation,
        FeatureValue,
        Page,
        Prediction,
        Reason,
        Recommendations,
        Request,
        ScoredItem,
        Scores,
        Similar,
        UserVector,
        ValueContribution,
    )
    from recall.serving.rerank.channels import Channels, LatestChannel, ListChannel, ModelChannel, PopularChannel, Source
    from recall.serving.rerank.rules import Dedupe, Diversify, Pin, Quota
    from recall.store.items.snapshot import Degraded
    from recall.store.users.profiles import Interaction, User

__all__ = [
    "Absence",
    "BundleError",
    "CatalogueItem",
    "Channels",
    "ConfigError",
    "Contribution",
    "DataError",
    "Dedupe",
    "Degraded",
    "Diversify",
    "EvaluationReport",
    "Explanation",
    "ExportError",
    "FeatureValue",
    "IndexDownError",
    "IndexFileError",
    "Interaction",
    "JournalBusyError",
    "JournalDamagedError",
    "JournalDownError",
    "JournalError",
    "JournalFullError",
    "JournalReadOnlyError",
    "LatestChannel",
    "ListChannel",
    "Model",
    "ModelChannel",
    "Page",
    "Pin",
    "PopularChannel",
    "Prediction",
    "PublishBusyError",
    "PublishError",
    "Quota",
    "Reason",
    "RecallError",
    "Recommendations",
    "Recommender",
    "Request",
    "RequestError",
    "RunConfig",
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
    "TrainingError",
    "TrainingInterruptedError",
    "User",
    "UserVector",
    "ValueContribution",
    "VersionMovedError",
    "fit",
    "load",
    "load_config",
]

_HOMES = {
    "recall.api.fit": ("fit",),
    "recall.api.model": ("Model", "load"),
    "recall.config": ("RunConfig", "load_config"),
    "recall.evaluation.evaluate": ("EvaluationReport",),
    "recall.serving.request": (
        *("Absence", "CatalogueItem", "Contribution", "Explanation", "FeatureValue", "Page", "Prediction"),
        *("Reason", "Recommendations", "Request", "ScoredItem", "Scores", "Similar", "UserVector", "ValueContribution"),
    ),
    "recall.store.items.snapshot": ("Degraded",),
    "recall.serving.recommender": ("Recommender",),
    "recall.serving.rerank.channels": (
        *("Channels", "LatestChannel", "ListChannel", "ModelChannel", "PopularChannel", "Source"),
    ),
    "recall.serving.rerank.rules": ("Dedupe", "Diversify", "Pin", "Quota"),
    "recall.store.users.profiles": ("Interaction", "User"),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'recall' has no attribute {name!r}")
    from importlib import import_module

    home = next((module for module, names in _HOMES.items() if name in names), "recall.errors")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
