"""Factorization-machine recall: train on interactions and features, export exact vectors, serve the top n.

What is named here is imported when it is first asked for: `import recall` is quick, and serving never loads torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recall.answer import (
        Absence,
        CatalogueItem,
        Contribution,
        Explanation,
        FeatureValue,
        Page,
        Prediction,
        Reason,
        Recommendations,
        ScoredItem,
        Scores,
        Similar,
        UserVector,
        ValueContribution,
    )
    from recall.channels.kinds import Channels, LatestChannel, ListChannel, ModelChannel, PopularChannel
    from recall.channels.merging import Source
    from recall.config import RunConfig, load_config
    from recall.degraded import Degraded
    from recall.errors import (
        BundleError,
        ConfigError,
        DataError,
        ExportError,
        IndexFileError,
        JournalBusyError,
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
        VersionMovedError,
    )
    from recall.recommender import Recommender
    from recall.request import Request
    from recall.rules.diversity import Diversify
    from recall.rules.pins import Pin
    from recall.rules.quota import Dedupe, Quota
    from recall.stores.known import Interaction, User

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
    "Explanation",
    "ExportError",
    "FeatureValue",
    "IndexFileError",
    "Interaction",
    "JournalBusyError",
    "JournalError",
    "JournalFullError",
    "JournalReadOnlyError",
    "LatestChannel",
    "ListChannel",
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
    "User",
    "UserVector",
    "ValueContribution",
    "VersionMovedError",
    "load_config",
]

_HOMES = {
    "recall.config": ("RunConfig", "load_config"),
    "recall.answer": (
        *("Absence", "CatalogueItem", "Contribution", "Explanation", "FeatureValue", "Page", "Prediction"),
        *("Reason", "Recommendations", "ScoredItem", "Scores", "Similar", "UserVector", "ValueContribution"),
    ),
    "recall.degraded": ("Degraded",),
    "recall.recommender": ("Recommender",),
    "recall.request": ("Request",),
    "recall.channels.kinds": ("Channels", "LatestChannel", "ListChannel", "ModelChannel", "PopularChannel"),
    "recall.channels.merging": ("Source",),
    "recall.rules.diversity": ("Diversify",),
    "recall.rules.pins": ("Pin",),
    "recall.stores.known": ("Interaction", "User"),
    "recall.rules.quota": ("Dedupe", "Quota"),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'recall' has no attribute {name!r}")
    home = next((module for module, names in _HOMES.items() if name in names), "recall.errors")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
