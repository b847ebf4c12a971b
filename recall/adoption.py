"""Taking a version that was made elsewhere into a root: verified, numbered here, and bound to this root's live changes."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from recall import golden
from recall.bundle.bundle import Bundle, load_bundle
from recall.bundle.manifest import FORMAT_VERSION, Manifest
from recall.bundle.publish import live_name, publish, resolve, staging
from recall.errors import BundleError, PublishError
from recall.live.binding import Standing, stand
from recall.other_data import refuse_other_data
from recall.rebuild import kept, with_through
from recall.recommender import Recommender


@dataclass(frozen=True, slots=True)
class Adopted:
    """What became of a version.

    Attributes:
        folder: of the published version.
        manifest: its manifest.
        source: name of the version where it came from.
        standing: which live changes of the root lie on top of it.
        unmatched: why it could not be compared with the version that was served; empty when it was, or nothing was served.
    """

    folder: Path
    manifest: Manifest
    source: str
    standing: Standing
    unmatched: str = ""


def adopt(version: Path, root: Path, as_of: int = 0, *, other_data: bool = False) -> Adopted:
    """Publish a copy of a version to a root.

    None of the root's live changes are in it, whatever it holds of those of the root that it comes from: they all lie on top
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
    recommender = Recommender.load(folder, users=None)
    try:
        golden.check(recommender)
        bundle = recommender.bundle
        unmatched = "" if other_data else _matched(bundle, root)
        standing = stand(root, bundle.item_ids.values.to_list(), as_of)
        with staging(root) as staged:
            try:
                for name in bundle.manifest.files:
                    shutil.copyfile(folder / name, staged / name)
            except OSError as error:
                raise PublishError("a file could not be copied", where=str(staged), why=str(error)) from None
            _bound(recommender, standing).write(staged)
            Recommender.load(staged, verify=True, root=root, users=None).close()  # with the root's live changes on top
            published = publish(staged, root, keep=kept(bundle.manifest))
    finally:
        recommender.close()
    return Adopted(published, Manifest.read(published), folder.name, standing, unmatched)


def _matched(bundle: Bundle, root: Path) -> str:
    """Compare a version with what a root serves; returns why that was not possible. Raises BundleError if it differs."""
    if not live_name(root):
        return ""
    try:
        served = load_bundle(root, index=False)
    except BundleError as error:  # which publishing may mend
        return f"the version that was served cannot be read, so whether this one is of the same data is not known: {error.what}"
    refuse_other_data(bundle, served)
    return ""


def _bound(recommender: Recommender, standing: Standing) -> Manifest:
    """The manifest of the copy."""
    before, encoder = recommender.bundle.manifest, recommender.bundle.encoder
    if before.format_version < FORMAT_VERSION:
        if before.format_version < FORMAT_VERSION - 1:
            if standing.base.folded:
                raise BundleError(
                    f"a bundle of format {before.format_version} cannot say which live changes it contains",
                    where=str(recommender.bundle.folder),
                    mend="Publish it with `recall rebuild`, which writes the newest format",
                )
            return before.model_copy(update={"sequence": 0, "parent": None})
        before = before.upgraded(encoder.user_fields.names, encoder.item_fields.names)
    base = standing.base
    config = with_through(before.config, base.folded)
    return before.model_copy(update={"sequence": 0, "parent": None, "folded": base.folded, "log": base.log, "config": config})
