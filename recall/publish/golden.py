"""Golden requests: answers recorded at publication, checked before serving.

They take the whole path of a request, from stored users and the encoder to ids. So they detect faults that no checksum
can: a library, a processor or a version of this program that computes something else from the same bytes.
"""

from contextlib import closing
from dataclasses import replace
from math import isfinite
from pathlib import Path

import numpy as np

from recall.bundle.manifest import GoldenRecord, Manifest
from recall.errors import BundleError
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.store.users.profiles import UserProfiles

USERS, HISTORIES = 16, 8
"""Number of requests of stored users, and of anonymous ones with a synthetic history; one more has no user at all."""
TOP = 10
TOLERANCE = 1e-4
"""Largest difference of a score, relative to the largest of its list or to 1: processors add up in other orders."""
_DIGITS = ".6g"  # of scores that are stored: so few that any other digit is another number, which the checksum sees
_SLACK = 0.02  # of all items of the lists of an index that is not exact: those at the edge of what it scans


def record(folder: Path) -> Manifest:
    """Query a finished bundle and write the answers into its manifest.

    Raises:
        BundleError: It cannot be loaded, or a score is not finite.
        PublishError: The file system refused.
    """
    with Recommender.load(folder, verify=False) as recommender:
        requests = _requests(recommender)
        answers = recommender.recommend_batch(requests)
        if not all(isfinite(score) for answer in answers for score in answer.scores):
            raise BundleError(
                "a score is not finite",
                where="golden requests",
                hint="Nothing was published. Look at the training metrics: the model diverged",
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
    """Check that a bundle reproduces its golden answers; return how many there are.

    The bundle is queried without live changes.

    Raises:
        BundleError: An answer or the number of users differs.
    """
    bundle = recommender.bundle
    golden = bundle.manifest.golden or ()
    with closing(UserProfiles.of(bundle.users_file, None, None, bundle.encoder, bundle.manifest.data_hash)) as users:
        alone = Recommender(bundle, recommender.index, users)
        stored, said = len(users), bundle.manifest.sizes.users
        if stored != said:
            where = str(bundle.users_file)
            raise BundleError(f"the file holds {stored} users, the manifest says {said}", where=where)
        answers = alone.recommend_batch([Request(one.user_id, history=one.history, n=TOP) for one in golden])
    lists = [{item.item_id: item.score for item in answer.items} for answer in answers]
    wrong = list(map(_differences, golden, lists))
    allowed = 0 if recommender.index.exact else int(_SLACK * sum(len(one.items) for one in golden))
    if sum(wrong) > allowed:
        raise BundleError(
            f"{sum(map(bool, wrong))} of {len(golden)} golden requests are not answered as they were when it was published",
            where=str(bundle.folder),
            why=f"{sum(wrong)} items of their lists are missing, or have another score",
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


def _differences(expected: GoldenRecord, found: dict[str, float]) -> int:
    """Items that should be in a list and are not, or have another score.

    An item whose score ties with the last one's may give way to another of that score.
    """
    if len(found) != len(expected.items):
        return max(len(expected.items), 1)
    if not found:
        return 0
    near = TOLERANCE * max(1.0, *map(abs, expected.scores))
    last = expected.scores[-1]
    wrong = sum(
        abs(found[one] - score) > near if one in found else score > last + near
        for one, score in zip(expected.items, expected.scores, strict=True)
    )
    return wrong + sum(found[one] < last - near for one in found.keys() - set(expected.items))
