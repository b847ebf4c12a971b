"""Adopt a version built elsewhere: verify, number, bind to the root's change log."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recall.bundle.reader import Bundle, load_bundle
from recall.bundle.versions import live_name, resolve
from recall.bundle.writer import BundleWriter
from recall.errors import BundleError
from recall.publish import golden
from recall.publish.rebuild import Published, kept, with_through
from recall.serving.recommender import Recommender
from recall.store.items.binding import stand
from recall.store.users.bundle_users import SqliteUsers

# Whether two bundles come from one data set, so that one may take the other's place in a service.

_FEW_ITEMS = 0.05  # of the smaller catalogue
_FEW_PAIRS = 0.1  # numbers as ids occur in any data set, interactions do not
_SAMPLE = 500  # users whose interactions are compared
_ENOUGH = 100  # interactions below which a share says nothing


@dataclass(frozen=True, slots=True)
class Likeness:
    """Overlap of a bundle with the one that is served.

    Attributes:
        columns: id columns with another name, each as "its name, the served one".
        items: share of the smaller catalogue that is in the other one.
        pairs: share of what the users of both have taken that both know, of the bundle that knows less of them; None where
            that is too little to compare.
    """

    columns: tuple[tuple[str, str], ...]
    items: float
    pairs: float | None

    @property
    def other_data(self) -> bool:
        """Whether the bundles were made from different data sets."""
        return bool(self.columns) or self.items < _FEW_ITEMS or (self.pairs is not None and self.pairs < _FEW_PAIRS)

    def reasons(self) -> Iterator[str]:
        """Say what they do not have in common, one clause each."""
        for mine, served in self.columns:
            yield f"its ids are in a column {mine!r}, and those of the served version in {served!r}"
        if self.items < _FEW_ITEMS:
            yield f"{self.items:.1%} of the item ids are in both catalogues"
        if self.pairs is not None and self.pairs < _FEW_PAIRS:
            yield f"{self.pairs:.1%} of what their common users have taken is the same"


def compare_data(bundle: Bundle, served: Bundle) -> Likeness:
    """Compare the ids of two bundles, and the history of a sample of shared users.

    Args:
        bundle: one.
        served: the other one.

    Raises:
        BundleError: A file cannot be read.
    """
    mine, theirs = bundle.encoder.schema, served.encoder.schema
    names = ((mine.user_id, theirs.user_id), (mine.item_id, theirs.item_id))
    smaller, larger = sorted((bundle.item_ids, served.item_ids), key=len)
    shared = larger.rows(smaller.values.to_list()) >= 0
    return Likeness(
        columns=tuple((one, other) for one, other in names if one != other),
        items=float(np.mean(shared)),
        pairs=_pairs(bundle, served),
    )


def refuse_other_data(bundle: Bundle, served: Bundle) -> None:
    """Check that a bundle comes from the same data set as the one that is served.

    Args:
        bundle: the new one.
        served: the one that is served.

    Raises:
        BundleError: It comes from another data set.
    """
    likeness = compare_data(bundle, served)
    if likeness.other_data:
        raise BundleError(
            f"the version comes from another data set than {served.manifest.version}, which is served",
            where=str(bundle.folder),
            why="; ".join(likeness.reasons()),
            hint="Give a version of the data that this root serves, or another root; "
            "add --other-data if this root is to serve the other data from now on",
        )


def _pairs(bundle: Bundle, served: Bundle) -> float | None:
    if bundle.manifest.users_elsewhere is not None or served.manifest.users_elsewhere is not None:
        return None
    with closing(SqliteUsers(bundle.users_file)) as mine, closing(SqliteUsers(served.users_file)) as theirs:
        both = found = known = 0
        for user in theirs.sample(_SAMPLE, 0):
            ours, other = mine.get(user), theirs.get(user)
            if ours is not None and other is not None:
                both += len(set(ours.seen) & set(other.seen))
                found += len(ours.seen)
                known += len(other.seen)
        least = min(found, known)
        return both / least if least >= _ENOUGH else None


@dataclass(frozen=True, slots=True)
class Adopted(Published):
    """The copy of a version.

    Attributes:
        source: name of the version where it came from.
        unmatched: why it could not be compared with the version that was served; empty when it was, or nothing was served.
    """

    source: str
    unmatched: str = ""


def adopt(version: Path, root: Path, as_of: int = 0, *, other_data: bool = False) -> Adopted:
    """Publish a copy of a version to a root.

    None of the root's live changes are in it, whatever it contains of those of its own root: all are applied on top
    of it, but for those up to `as_of`.

    Args:
        version: the folder of a version, or another root, whose live version is taken.
        root: the folder to publish to.
        as_of: the tables behind the version contain all live changes of `root` up to this sequence.
        other_data: take it although it comes from another data set than the version that is served.

    Raises:
        BundleError: the version is missing, damaged, does not answer its golden requests as it did, or comes from another data
            set.
        IndexFileError: its index does not fit.
        ConfigError: there is no live change of that sequence.
        JournalError: the root's log cannot be read.
        PublishError: the file system refused; what was live stays live.
    """
    folder = resolve(version)
    with Recommender.load(folder, users=None) as recommender:
        golden.check(recommender)
        bundle = recommender.bundle
        unmatched = "" if other_data else _matched(bundle, root)
        standing = stand(root, bundle.item_ids.values.to_list(), as_of)
        names = (bundle.encoder.user_fields.names, bundle.encoder.item_fields.names)
        base, config = standing.base, with_through(bundle.manifest.config, standing.base.compacted_through)
        with BundleWriter.open(root) as writer:
            for name in bundle.manifest.files:
                writer.copy(folder / name)
            bundle.manifest.adopted(base.compacted_through, base.log, config, names).write(writer.folder)
            published, manifest = writer.publish(lambda copy: _open(copy, root), keep=kept(bundle.manifest))
    return Adopted(published, manifest, standing, folder.name, unmatched)


def _open(copy: Path, root: Path) -> None:
    """Open a copy as it will be served, with the root's live changes on top."""
    Recommender.load(copy, verify=True, root=root, users=None).close()


def _matched(bundle: Bundle, root: Path) -> str:
    """Compare a version with the live one; return why that was not possible.

    Raises:
        BundleError: They come from different data sets.
    """
    if not live_name(root):
        return ""
    try:
        served = load_bundle(root, index=False)
    except BundleError as error:  # which publishing may repair
        return f"the version that was served cannot be read, so whether this one is of the same data is not known: {error.what}"
    refuse_other_data(bundle, served)
    return ""
