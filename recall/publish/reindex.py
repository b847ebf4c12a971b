"""Another index for a published model: everything else is carried over, and nothing is trained or encoded anew."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue, ValidationError

from recall.bundle import files
from recall.bundle.deletions import write_deletions
from recall.bundle.manifest import MANIFEST, IndexRecord, Manifest
from recall.bundle.reader import Bundle, write_contents
from recall.bundle.versions import CURRENT, publish, staging
from recall.config import IndexConfig
from recall.errors import ConfigError, PublishError
from recall.index.tuning.trials import Trial
from recall.publish import golden
from recall.publish.index import QUERIES, QuerySample, write_index
from recall.publish.rebuild import STORED, carried_counts, kept, open_for_another_index, user_rows


@dataclass(frozen=True, slots=True)
class ReindexReport:
    """What tuning came to.

    Attributes:
        before: the index that the source has.
        index: the one that was chosen.
        folder: the published bundle; None where nothing was to be published.
        version: of that bundle, or of the source.
        unopened: why the source's index could not be opened; empty when it could.
    """

    before: IndexRecord
    index: IndexRecord
    folder: Path | None
    version: str
    unopened: str = ""


def reindex(
    source: Path,
    root: Path | None,
    changes: Mapping[str, JsonValue],
    tell: Callable[[Trial], None] = lambda _: None,
) -> ReindexReport:
    """Find the fastest index that meets a target over a bundle's items, for the users that are stored with it.

    Args:
        source: a bundle, or the root whose live version is taken.
        root: where a version with that index is published; None publishes nothing. When it is also the source, its live
            version must not change meanwhile.
        changes: settings of the index in place of those that the bundle was published with.
        tell: called with each candidate when it was tried.

    Raises:
        BundleError: the source is missing or damaged.
        ConfigError: a setting is not one of an index, or out of range.
        PublishError: the file system refused, or another version went live meanwhile; what was live stays live.
    """
    if root is not None and (root / MANIFEST).exists():
        raise PublishError("a bundle is no folder to publish to", where=str(root), hint="Give one that holds versions: --out")
    old, unopened = open_for_another_index(source, users=None)
    try:
        bundle, manifest = old.bundle, old.bundle.manifest
        config = _config(manifest, changes)
        users = bundle.tables.user_vectors(user_rows(bundle.encoder, old.users, QUERIES, manifest.seed))
        asked = QuerySample(users, STORED, manifest.seed)
        if root is None:
            with tempfile.TemporaryDirectory() as temporary:
                _copy(bundle.folder / files.ITEM_VECTORS, Path(temporary))
                index = write_index(Path(temporary), bundle.item_vectors.shape, asked, config, tell=tell, always=True)
            return ReindexReport(manifest.index, index, None, manifest.version, unopened)
        with staging(root) as folder:
            items = bundle.items()
            counts = carried_counts(bundle, items)
            write_contents(folder, bundle.encoder, bundle.tables, bundle.item_vectors, items, counts)
            _copy(bundle.users_file, folder)
            write_deletions(folder, bundle.deletions())
            index = write_index(folder, bundle.item_vectors.shape, asked, config, tell=tell, always=True)
            _seal(bundle, folder, index, config)
            live = (source / CURRENT).exists() and source.resolve() == root.resolve()
            golden.record(folder)
            published = publish(folder, root, expected=manifest.sequence if live else None, keep=kept(manifest))
        return ReindexReport(manifest.index, index, published, Manifest.read(published).version, unopened)
    finally:
        old.close()


def _config(manifest: Manifest, changes: Mapping[str, JsonValue]) -> IndexConfig:
    before = IndexConfig.recorded(manifest.config.get("index", {}))
    try:
        return IndexConfig.model_validate({**before.model_dump(), **changes})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise ConfigError(fault["msg"], where=".".join(("index", *map(str, fault["loc"])))) from None


def _copy(file: Path, folder: Path) -> None:
    try:
        shutil.copyfile(file, folder / file.name)
    except OSError as error:
        raise PublishError("a file could not be copied", where=str(folder / file.name), why=str(error)) from None


def _seal(bundle: Bundle, folder: Path, index: IndexRecord, config: IndexConfig) -> None:
    """Write the manifest: the source's, with another index and in the format of today."""
    before, encoder = bundle.manifest, bundle.encoder
    before.upgraded(encoder.user_fields.names, encoder.item_fields.names).model_copy(
        update={
            "sequence": 0,
            "parent": before.sequence,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "files": files.describe(folder),
            "index": index,
            "config": {**before.config, "index": config.model_dump(mode="json")},
        }
    ).write(folder)
