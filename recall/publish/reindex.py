"""Build another index for a published model; everything else is carried over."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue, ValidationError

from recall.bundle.manifest import MANIFEST, Manifest
from recall.bundle.reader import write_deletions
from recall.bundle.versions import CURRENT
from recall.bundle.writer import BundleWriter
from recall.config import IndexConfig
from recall.errors import ConfigError, PublishError
from recall.index.record import IndexRecord, Trial
from recall.publish import golden
from recall.publish.index import QuerySample, write_index
from recall.publish.rebuild import STORED, carried_counts, kept, open_for_another_index, user_rows


@dataclass(frozen=True, slots=True)
class ReindexReport:
    """Result of tuning.

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
    """Find the fastest index that reaches a target, for the stored users of a bundle.

    Args:
        source: a bundle, or the root whose live version is taken.
        root: where a version with that index is published; None publishes nothing. When it is also the source, its live
            version must not change meanwhile.
        changes: settings of the index that override those of the bundle.
        tell: called with each candidate when it was tried.

    Raises:
        BundleError: The source is missing or damaged.
        ConfigError: A setting is unknown or out of range.
        PublishError: The file system refused, or another version went live meanwhile; what was live stays live.
    """
    if root is not None and (root / MANIFEST).exists():
        raise PublishError("a bundle is not a folder to publish to", where=str(root), hint="Give one with versions: --out")
    old, unopened = open_for_another_index(source, users=None)
    with old:
        bundle, manifest = old.bundle, old.bundle.manifest
        config = _config(manifest, changes)
        users = bundle.tables.user_vectors(user_rows(bundle.encoder, old.users, manifest.seed))
        asked = QuerySample(users, STORED, manifest.seed)
        if root is None:
            with tempfile.TemporaryDirectory() as temporary:
                index = write_index(Path(temporary), bundle.item_vectors, asked, config, tell=tell, always=True)
            return ReindexReport(manifest.index, index, None, manifest.version, unopened)
        with BundleWriter.open(root) as writer:
            items = bundle.items()
            writer.write_contents(bundle.encoder, bundle.tables, bundle.item_vectors, items, carried_counts(bundle, items))
            writer.link(bundle.users_file)
            write_deletions(writer.folder, bundle.deletions())
            index = write_index(writer.folder, bundle.item_vectors, asked, config, tell=tell, always=True)
            settings = {**manifest.config, "index": config.model_dump(mode="json")}
            origin = manifest.provenance(config=settings)
            writer.write_manifest(origin, manifest.sizes.users, manifest.parity, index, manifest.model.fold)
            live = (source / CURRENT).exists() and source.resolve() == root.resolve()
            published, after = writer.publish(golden.record, manifest.sequence if live else None, kept(manifest))
        return ReindexReport(manifest.index, index, published, after.version, unopened)


def _config(manifest: Manifest, changes: Mapping[str, JsonValue]) -> IndexConfig:
    before = IndexConfig.recorded(manifest.config.get("index", {}))
    try:
        return IndexConfig.model_validate({**before.model_dump(), **changes})
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise ConfigError(fault["msg"], where=".".join(("index", *map(str, fault["loc"])))) from None
