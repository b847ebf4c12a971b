"""The manifest of a bundle: contents, provenance, and verified properties.

`manifest.json` is JSON with sorted keys, except in `config`, whose order of fields affects the bits of a trained model.
`checksum` is the SHA-256 of the JSON with all keys sorted and without that key, so that changes are detected as for any other
file. The format version is checked first.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from recall.config.schema import Record, Schema
from recall.errors import BundleError, PublishError, raising
from recall.index.record import IndexRecord
from recall.models.serving.base import Kind, Parity

ColumnType = Annotated[str, Field(pattern="^(list of )?(text|integer|float32|float64|boolean|date|time|clock)$")]
"""One of "text", "integer", "float32", "float64", "boolean", "date", "time" (a moment) and "clock" (a time of day), or
"list of" one of them."""


class ColumnTypes(BaseModel):
    """Type of each column by name, by side: a column of two tables may differ."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    users: dict[str, ColumnType] = {}
    """Columns of the users table."""
    contexts: dict[str, ColumnType] = {}
    """Columns of the interactions table that are context of a request."""
    items: dict[str, ColumnType] = {}
    """Columns of the items table that item fields read, and the id column."""
    attributes: dict[str, ColumnType] = {}
    """Columns of the items table that only filters use."""


FORMAT_VERSION: Final = 4
MANIFEST = "manifest.json"
INDEX_BEFORE_4: Final = "index.faiss"
"""Name of the index file in formats 1 to 3, the same for all engines."""
_INDEX_SINCE_3: Final = {"certificate", "candidates", "provenance", "why", "checks"}
_INDEX_SINCE_4: Final = {"engine", "file"}
_SINCE_4: Final = {"log": True, "columns": True, "users_elsewhere": True}
_NOT_IN: Final[dict[int, dict[str, Any]]] = {
    1: {**_SINCE_4, "model": True, "folded": True, "index": _INDEX_SINCE_3 | _INDEX_SINCE_4},
    2: {**_SINCE_4, "folded": True, "index": _INDEX_SINCE_3 | _INDEX_SINCE_4},
    3: {**_SINCE_4, "index": _INDEX_SINCE_4},
}
"""Keys that a format version does not have; its checksums do not cover them."""


class FileEntry(Record):
    """One file of the bundle."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Sizes(Record):
    """Sizes of the data and of the model."""

    users: int = Field(ge=0)
    items: int = Field(ge=1)
    n_user_features: int = Field(ge=1)
    n_item_features: int = Field(ge=1)
    k: int = Field(ge=0)
    dim: int = Field(ge=1)


class FoldRecord(Record):
    """Error of folding a model's field weights into vectors: a low-rank approximation."""

    rank: int = Field(ge=1)
    """Rank of the approximation: a vector has this many parts of k numbers."""
    lost: float = Field(ge=0)
    """Frobenius norm of the dropped part of the field weights, relative to that of all."""
    score_error: float = Field(ge=0)
    """Largest relative error of a score in the sample of the parity check."""


class ModelRecord(Record):
    """Kind of the model and its fields."""

    kind: Kind
    cosine: bool = False
    """Whether vectors are scaled to unit length."""
    popularity: bool = False
    """Whether vectors have one more component, the popularity factor."""
    user_fields: tuple[str, ...]
    """Names of the user fields in the order of the model; empty in format 1, as `item_fields`."""
    item_fields: tuple[str, ...]
    """Names of the item fields in the order of the model."""
    kept: dict[str, int] = Field(default={})
    """Number of stored rows of each packed array, by name: zero rows are not stored."""
    fold: FoldRecord | None = None
    """Error of the fold of a field-weighted model, which parity does not include; None for other models."""

    @model_validator(mode="after")
    def _only_field_weights_are_folded(self) -> "ModelRecord":
        if (self.fold is not None) != (self.kind == "fwfm"):
            raise ValueError(f"a model of kind {self.kind!r} {'has a fold' if self.fold else 'has no fold'}")
        return self


class GoldenRecord(Record):
    """A request and its answer at the time of publication."""

    user_id: str | None = None
    history: tuple[str, ...] | None = None
    items: tuple[str, ...]
    """Best first."""
    scores: tuple[float, ...]

    @model_validator(mode="after")
    def _each_item_has_a_score(self) -> "GoldenRecord":
        if len(self.items) != len(self.scores):
            raise ValueError(f"{len(self.items)} items and {len(self.scores)} scores")
        return self


class Provenance(Record):
    """Origin of a bundle."""

    name: str
    parent: int | None = None
    """Sequence of the bundle that this one was rebuilt from or continues."""
    data_hash: str
    seed: int
    config: dict[str, JsonValue]
    """The run's configuration."""
    metrics: dict[str, JsonValue] = Field(default={})
    """Report of training and evaluation."""
    folded: int = Field(default=0, ge=0)
    """Sequence of the last live change that the items contain; 0 if they contain none."""
    log: str | None = None
    """Identity of the change log of `folded`; None if unknown, as in formats 1 to 3."""
    columns: ColumnTypes | None = None
    """Types of the columns of requests, users and items; None if unknown, as in formats 1 to 3."""


class Manifest(Provenance):
    """Description of a bundle."""

    format_version: Literal[1, 2, 3, 4] = FORMAT_VERSION
    sequence: int = Field(ge=0)
    """Number of the publication; 0 while the bundle is not published."""
    created: str
    """Time of creation: UTC, ISO 8601."""
    schema_: Schema = Field(alias="schema")
    schema_fingerprint: str
    sizes: Sizes
    model: ModelRecord
    files: dict[str, FileEntry]
    users_elsewhere: None = None
    """Reserved; checksums cover the key."""
    parity: Parity
    index: IndexRecord
    golden: tuple[GoldenRecord, ...] | None = None
    """Answers that the bundle must reproduce before it is served; None if they were not recorded."""
    libraries: dict[str, str]
    """Versions of the libraries that wrote the bundle, by name."""

    @model_validator(mode="before")
    @classmethod
    def _add_defaults_of_older_formats(cls, values: Any) -> Any:
        """Add the model of format 1, and index file and engine of formats 1 to 3."""
        version, index = values.get("format_version"), values.get("index")
        if version == 1:
            values = {"model": {"kind": "fm", "user_fields": (), "item_fields": ()}, **values}
        if version in (1, 2, 3) and isinstance(index, dict):
            engine = "cells" if index.get("kind") == "cells" else "faiss"
            values = {**values, "index": {"engine": engine, "file": INDEX_BEFORE_4, **index}}
        return values

    @model_validator(mode="after")
    def _index_fits_format_and_files(self) -> "Manifest":
        if (self.index.checks is None) != (self.format_version < 3):
            raise ValueError(f"format {self.format_version} {'needs' if self.format_version > 2 else 'has no'} index.checks")
        if self.index.file is not None and self.index.file not in self.files:
            raise ValueError(f"index.file is {self.index.file!r}, which is not among the files")
        return self

    def provenance(self, **changes: object) -> Provenance:
        """Return the provenance of a bundle made from this one, with some changes."""
        kept = {name: getattr(self, name) for name in Provenance.model_fields}
        return Provenance.model_validate({**kept, "parent": self.sequence, **changes})

    @property
    def checksum(self) -> str:
        """SHA-256 of the canonical JSON form, as 64 hexadecimal digits."""
        return hashlib.sha256(_canonical(self._values())).hexdigest()

    @property
    def version(self) -> str:
        """Name of the published folder: the sequence and the first digits of the checksum."""
        return f"{self.sequence:06d}-{self.checksum[:8]}"

    @property
    def objective(self) -> str:
        """The training objective, such as 'square'; empty when unknown."""
        return str(self.section("train").get("objective", ""))

    @property
    def attributes(self) -> tuple[str, ...]:
        """Item columns for filters; fields may read some of them, too."""
        return _texts(self.section("data").get("attributes"))

    @property
    def boosts(self) -> tuple[str, ...]:
        """Names of the item coordinates that requests may weight."""
        return _texts(self.section("index").get("boosts"))

    def section(self, name: str) -> dict[str, JsonValue]:
        """Return a section of the run's configuration; empty if it is missing."""
        section = self.config.get(name)
        return section if isinstance(section, dict) else {}

    def adopted(
        self, folded: int, log: str | None, config: dict[str, JsonValue], fields: tuple[tuple[str, ...], tuple[str, ...]]
    ) -> "Manifest":
        """Return the manifest of a copy of the bundle for another root, unpublished.

        The files of formats 1 and 2 are not those of the newest format, so a copy of one keeps its format.

        Args:
            folded: sequence of the last live change of the root that the items contain.
            log: identity of the change log of `folded`.
            config: the run's configuration, which also has `folded`.
            fields: names of the encoder's user fields and item fields, which format 1 does not record.

        Raises:
            BundleError: Its format cannot record that it contains live changes.
        """
        if self.format_version >= FORMAT_VERSION - 1:
            model = self.model.model_copy(update={"user_fields": fields[0], "item_fields": fields[1]})
            changes = {"format_version": FORMAT_VERSION, "model": model, "folded": folded, "log": log, "config": config}
            return self.model_copy(update={"sequence": 0, "parent": None, **changes})
        if folded:
            raise BundleError(
                f"a bundle of format {self.format_version} cannot say which live changes it contains",
                where=f"version {self.version}",
                hint="Publish it with `recall rebuild`, which writes the newest format",
            )
        return self.model_copy(update={"sequence": 0, "parent": None})

    def write(self, folder: Path) -> None:
        """Write `manifest.json` into a folder.

        Raises:
            PublishError: Writing failed.
        """
        with raising(PublishError, "the manifest could not be written", where=str(folder / MANIFEST)):
            values = {**self._values(), "checksum": self.checksum}
            sorted_ = {**orjson.loads(_canonical(values)), "config": values["config"]}
            (folder / MANIFEST).write_bytes(orjson.dumps(sorted_, option=_READABLE))

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read and check `manifest.json`.

        Raises:
            BundleError: It is missing, unreadable, of a newer format, or does not match its own checksum.
        """
        path = folder / MANIFEST
        try:
            return cls.parse(path.read_bytes(), str(path))
        except FileNotFoundError:
            raise BundleError("there is no manifest", where=str(path), hint="Give the folder of a bundle") from None
        except OSError as error:
            raise BundleError("the manifest cannot be read", where=str(path), why=str(error)) from None

    @classmethod
    def parse(cls, raw: bytes, where: str) -> "Manifest":
        """Parse and check the content of a `manifest.json`.

        Args:
            raw: the content.
            where: its path or address, for errors.

        Raises:
            BundleError: As for `read`.
        """
        try:
            values = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            raise BundleError("the manifest cannot be read", where=where, why=str(error)) from None
        if not isinstance(values, dict):
            raise BundleError("the manifest must be a JSON object", where=where)
        _check_version(values, where)
        recorded = values.pop("checksum", None)
        actual = hashlib.sha256(_canonical(values)).hexdigest()
        if recorded != actual:
            raise BundleError(
                "the manifest was changed after it was written", where=where, why=f"checksum {recorded}, expected {actual}"
            )
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise BundleError("the manifest is not valid", where=where, why="; ".join(_faults(error))) from None

    def drop_index(self) -> None:
        """Remove the index from its server, if the bundle has no index file.

        Raises:
            IndexFileError: It could not be removed.
            ConfigError: The address of the server is missing.
        """
        if self.index.file is None:
            from recall.index.registry import drop  # imports Faiss

            drop(self.index.engine, self.index.kind, self.index.params)

    def _values(self) -> dict[str, Any]:
        excluded: dict[str, Any] = _NOT_IN.get(self.format_version, {})
        if self.golden is None:  # checksums of earlier bundles do not cover this key
            excluded = {**excluded, "golden": True}
        if not self.model.popularity and "model" not in excluded:  # nor this key
            excluded = {**excluded, "model": {"popularity": True}}
        # a manifest of an older format was read from a file, whose checksum does not cover keys that were added later
        older = self.format_version < FORMAT_VERSION
        return self.model_dump(mode="json", by_alias=True, exclude=excluded, exclude_unset=older)


def _texts(value: JsonValue) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


_READABLE: Final = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


def _canonical(values: dict[str, Any]) -> bytes:
    return orjson.dumps(values, option=orjson.OPT_SORT_KEYS | _READABLE)


def _check_version(values: dict[str, Any], where: str) -> None:
    version = values.get("format_version")
    if isinstance(version, bool) or not isinstance(version, int):
        raise BundleError(f"format_version must be an integer, got {version!r}", where=where)
    if version > FORMAT_VERSION:
        raise BundleError(
            f"the bundle is of format {version}, newer than the format {FORMAT_VERSION} that this version reads",
            where=where,
            hint="Upgrade fm-recall, or export the model again with this version",
        )
    if version < 1:
        raise BundleError(f"the bundle is of format {version}, and formats start at 1", where=where)


def _faults(error: ValidationError) -> Iterable[str]:
    for fault in error.errors(include_url=False, include_input=False)[:5]:
        yield f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
