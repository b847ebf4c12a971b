"""From the files of an import to a published bundle."""

from pathlib import Path

from pydantic import JsonValue

from recall.data.tables import Table, read_table
from recall.errors import DataError
from recall.publish.importers.formats import read_model
from recall.publish.importers.lightfm import read_lightfm
from recall.publish.importers.mapping import read_mapping
from recall.publish.importers.publishing import Catalogue, ImportReport, import_model


def run_import(
    kind: str,
    file: Path,
    mapping: Path | None,
    items: Path | None,
    users: Path | None,
    root: Path,
    name: str,
    ids: tuple[str, str] = ("user_id", "item_id"),
    plain: bool = False,
) -> ImportReport:
    """Read a foreign model and publish it.

    Args:
        kind: one of `recall.publish.importers.formats.FORMATS`.
        file: the model.
        mapping: what its features are; only a LightFM file may say so itself.
        items, users: tables; ids that the mapping names, when left out.
        root: where versions are published.
        name: of the bundle.
        ids: id columns of users and of items.
        plain: see `read_model`.

    Raises:
        DataError: a file is not what it should be.
        ExportError: what would be served is not what the model says; nothing is published.
        PublishError: the file system refused.
    """
    user_id, item_id = ids
    source: dict[str, JsonValue] = {"format": kind, "model": file.name}
    if mapping is None and kind == "lightfm":
        if items is not None or users is not None:
            raise DataError(
                "tables of users and items need a mapping",
                where="--mapping",
                mend="Say what each feature is, or leave them out",
            )
        read = read_lightfm(file)
        mapped, user_frame, item_frame = read.described(user_id, item_id)
        catalogue = Catalogue(
            Table(file, item_frame.lazy(), item_frame.schema),
            Table(file, user_frame.lazy(), user_frame.schema),
            user_id,
            item_id,
        )
        return import_model(read.model, mapped, catalogue, root, name, source)
    if mapping is None:
        raise DataError(
            "nothing says what the features are", where="--mapping", mend="Give a table with feature, side, field and value"
        )
    model = read_model(kind, file, plain)
    mapped = read_mapping(mapping, field_aware=model.kind == "ffm")
    mapped.check(model, str(mapping))
    catalogue = Catalogue(
        None if items is None else read_table(items), None if users is None else read_table(users), user_id, item_id
    )
    return import_model(model, mapped, catalogue, root, name, {**source, "mapping": mapping.name})
