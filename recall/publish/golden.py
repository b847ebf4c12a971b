"""Golden requests: answers recorded at publication, and compared before serving.

They exercise the whole path of a request, from stored users and the encoder to the ids of items. So they detect what checksums
cannot: a library, processor or version of this program that computes different results from the same files.
"""

from dataclasses import replace
from math import isfinite
from pathlib import Path

import numpy as np

from recall.bundle.manifest import GoldenRecord, Manifest
from recall.errors import BundleError, StoreError
from recall.serving.recommender import Recommender
from recall.serving.request import Request

USERS, HISTORIES = 16, 8
"""Number of requests for stored users, and for a synthetic history; one more request has neither."""
TOP = 10
"""Items per request."""
TOLERANCE = 1e-4
"""Maximum difference of a score, relative to the largest score of its list or to 1: processors sum in different orders."""
_DIGITS = ".6g"  # format of stored scores: with so few digits, a change of any digit is detected by the checksum
_SLACK = 0.02  # share of all items that may differ with an approximate index, whose scanned cells may differ at the margin


def record(folder: Path) -> Manifest:
    """Query a finished bundle, and write the answers into its manifest.

    Raises:
        BundleError: The bundle cannot be loaded, or a score is not finite.
        PublishError: The manifest cannot be written.
    """
    with Recommender.load(folder, verify=False) as recommender:
        requests = _requests(recommender)
        answers = recommender.recommend_batch(requests)
        if not all(isfinite(score) for answer in answers for score in answer.scores):
            raise BundleError(
                "a score is not finite",
                where="golden requests",
                hint="Nothing was published. Check the training metrics: the model diverged",
            )
        golden = tuple(
            GoldenRecord(
                user_id=request.user_id,
                history=None if request.history is None else tuple(request.history),
                items=tuple(item.item_id for item in answer.items),
                scores=tuple(float(f"{item.score:{_DIGITS}}") for item in answer.items),
            )
            for request, answer in zip(requests, answers, strict=True)
        )
    manifest = recommender.bundle.manifest.model_copy(update={"golden": golden})
    manifest.write(folder)
    return manifest


def check(recommender: Recommender) -> int:
    """Check that a bundle reproduces its golden answers; return their number.

    The bundle is queried without live changes.

    Raises:
        BundleError: An answer or the number of users differs.
        StoreError: The users of the bundle cannot be read.
    """
    bundle = recommender.bundle
    golden = bundle.manifest.golden or ()
    users = recommender.users.without_changes()
    stored, expected = len(users), bundle.manifest.sizes.users
    if stored != expected:
        raise BundleError(f"there are {stored} users, the manifest says {expected}", where=str(bundle.folder))
    unchanged = Recommender(bundle, recommender.index, users)
    answers = unchanged.recommend_batch([Request(one.user_id, history=one.history, n=TOP) for one in golden])
    reasons = [one.reason for answer in answers for one in answer.degraded if one.part == "users"]
    if reasons:
        raise StoreError(reasons[0])
    lists = [{item.item_id: item.score for item in answer.items} for answer in answers]
    differences = list(map(_count_differences, golden, lists))
    allowed = 0 if recommender.index.exact else int(_SLACK * sum(len(one.items) for one in golden))
    if sum(differences) > allowed:
        raise BundleError(
            f"{sum(map(bool, differences))} of {len(golden)} golden requests are not answered as at publication",
            where=str(bundle.folder),
            why=f"{sum(differences)} items of their lists are missing, or have another score",
            hint="Compare the versions of the libraries with those in its manifest, or export it again here",
        )
    return len(golden)


def _requests(recommender: Recommender) -> list[Request]:
    bundle = recommender.bundle
    rng = np.random.default_rng(bundle.manifest.seed)
    anonymous = Request(n=TOP)
    size = bundle.manifest.sizes.items
    drawn = [rng.choice(size, min(size, 3), replace=False).astype(np.int64) for _ in range(HISTORIES)]
    return [
        anonymous,
        *(replace(anonymous, user_id=user_id) for user_id in recommender.users.sample(USERS, bundle.manifest.seed)),
        *(replace(anonymous, history=tuple(bundle.item_ids.ids(rows))) for rows in drawn),
    ]


def _count_differences(expected: GoldenRecord, found: dict[str, float]) -> int:
    """Count the items that are missing from a list, or have a different score.

    An item that ties with the last one may be replaced by another item of the same score.
    """
    if len(found) != len(expected.items):
        return max(len(expected.items), 1)
    if not found:
        return 0
    tolerance = TOLERANCE * max(1.0, *map(abs, expected.scores))
    last = expected.scores[-1]
    differences = sum(
        abs(found[item_id] - score) > tolerance if item_id in found else score > last + tolerance
        for item_id, score in zip(expected.items, expected.scores, strict=True)
    )
    return differences + sum(found[item_id] < last - tolerance for item_id in found.keys() - set(expected.items))
