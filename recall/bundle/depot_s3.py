"""Depot in a bucket of an object store with the S3 API."""

import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from threading import Event, Thread
from typing import Any

import orjson
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store
from typing_extensions import override

from recall._file_system import replaced_file
from recall.bundle.depot import Depot, Pointer, past_after
from recall.bundle.files import check_listed, link_or_copy
from recall.bundle.manifest import MANIFEST, Manifest
from recall.errors import BundleError, ConfigError, IndexFileError, PublishBusyError, PublishError, VersionMovedError

_LIVE = "live.json"
_MIN_AGE = timedelta(days=1)  # younger objects are not pruned: they may belong to a version being uploaded or downloaded
_LEASE = 60.0  # seconds until a lease expires that is not renewed
_MAX_PAST = 100  # stored names of formerly live versions
_CHUNK = 1 << 20  # bytes
_TRIES = 20  # attempts to reserve a number while other machines reserve theirs


@dataclass(frozen=True)
class ObjectDepot(Depot):
    """A depot in a bucket of an object store with the S3 API.

    Attributes:
        url: its address, `s3://BUCKET/PREFIX`.
        store: an `obstore.store.S3Store`.
        without: names of files that `fetch` does not download.
    """

    url: str
    store: Any
    without: frozenset[str] = frozenset()
    shared = True

    @override
    def read(self) -> Pointer:
        found = self._get(_LIVE)
        if found is None:
            return Pointer()
        raw, state = found
        try:
            values = orjson.loads(raw)
            return Pointer(str(values["live"]), tuple(map(str, values["past"])), int(values["last"]), state)
        except (ValueError, LookupError, TypeError):
            raise PublishError("this is not the pointer of a depot", where=f"{self.url}/{_LIVE}") from None

    @override
    def reserve_number(self, pointer: Pointer, least: int) -> Pointer:
        for _ in range(_TRIES):
            reserved = pointer._replace(last=1 + max(least, pointer.last))
            try:
                return reserved._replace(state=self._write_pointer(reserved, pointer.state))
            except VersionMovedError:
                current = self.read()
                if current.live != pointer.live:
                    raise
                pointer = current
        raise PublishBusyError("other machines are publishing", where=self.url, hint="Try again in a moment")

    @override
    def send(self, folder: Path) -> None:
        files = {f"files/{entry.sha256}": folder / name for name, entry in Manifest.read(folder).files.items()}
        manifest = (f"versions/{folder.name}.json", folder / MANIFEST)
        # files twice: until the manifest is there, another publisher may prune an old file that only this version uses
        for path, file in (*files.items(), manifest, *files.items()):
            self._upload(path, file, create=True)

    @override
    def send_scenarios(self, file: Path) -> None:
        if file.exists():
            self._upload(file.name, file)

    @override
    def set_live(self, name: str, expected: Pointer, *, back: bool = False) -> None:
        past = past_after(expected.past, expected.live, name, back=back and name in expected.past)
        self._write_pointer(Pointer(name, tuple(past[-_MAX_PAST:]), expected.last), expected.state)

    @override
    def fetch(self, name: str, to: Path, local: Mapping[tuple[str, str], Path]) -> int:
        found = self._get(f"versions/{name}.json")
        if found is None:
            raise BundleError(f"there is no version {name}", where=self.url)
        (to / MANIFEST).write_bytes(found[0])
        manifest, transferred = Manifest.read(to), 0
        if manifest.version != name:
            raise BundleError(f"the manifest of version {name} says {manifest.version}", where=self.url)
        check_listed(to, manifest)
        for file, entry in manifest.files.items():
            if file in self.without:
                continue
            if (file, entry.sha256) in local:
                link_or_copy(local[file, entry.sha256], to / file)
            else:
                transferred += self._download(entry.sha256, to / file)
        return transferred

    @override
    def fetch_scenarios(self, file: Path) -> None:
        found = self._get(file.name)
        if found is None or (file.exists() and file.read_bytes() == found[0]):
            return
        with replaced_file(file) as staged:
            staged.write_bytes(found[0])

    @override
    def prune(self, keep: int) -> None:
        pointer, limit = self.read(), datetime.now(UTC) - _MIN_AGE
        manifests = self._list("versions/")
        kept = {*sorted(map(_name, manifests))[-keep:], *(*pointer.past, pointer.live)[-keep:]}
        removed = [path for path, changed in manifests.items() if _name(path) not in kept and changed < limit]
        used = {digest for path in manifests.keys() - set(removed) for digest in self.digests(_name(path)).values()}
        unused = [
            path
            for path, changed in self._list("files/").items()
            if path.removeprefix("files/") not in used and changed < limit
        ]
        for path in removed:  # manifests first, so that every listed version is complete
            with suppress(IndexFileError, ConfigError):  # the next publisher tries again
                self._drop_index(path)
                self._delete(path)
        for path in unused:
            self._delete(path)

    @override
    def versions(self) -> list[str]:
        return sorted(map(_name, self._list("versions/")))

    @override
    def remove(self, name: str, files: Sequence[str]) -> None:
        path = f"versions/{name}.json"
        digests = self.digests(name)
        with suppress(IndexFileError, ConfigError):  # an index that stays must not keep the users in the depot
            self._drop_index(path)
        self._delete(path)
        used = {digest for other in self.versions() for digest in self.digests(other).values()}
        for digest in {digests[file] for file in files if file in digests} - used:
            self._delete(f"files/{digest}")

    @override
    @contextmanager
    def lease(self, name: str) -> Iterator[None]:
        path, holder, done = f"leases/{name}.json", secrets.token_hex(8), Event()

        def content(until: float) -> bytes:
            return orjson.dumps({"holder": holder, "until": until})

        found = self._get(path)
        try:
            if found is not None and orjson.loads(found[0])["until"] > time.time():
                raise VersionMovedError("the lease has not expired")
            state = self._write(path, content(time.time() + _LEASE), None if found is None else found[1])
        except (VersionMovedError, ValueError, LookupError, TypeError):
            raise PublishBusyError(
                "another machine holds the lease", where=f"{self.url}/{path}", hint="Try again later"
            ) from None

        def extend(until: float) -> None:
            nonlocal state
            with suppress(PublishError, VersionMovedError):  # another machine has it, if this one was suspended for long
                state = self._write(path, content(until), state)

        def renew() -> None:
            while not done.wait(_LEASE / 3):
                extend(time.time() + _LEASE)

        thread = Thread(target=renew, name="renewing a lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            extend(0)

    def _drop_index(self, path: str) -> None:
        """Remove a version's index from its server; raise IndexFileError or ConfigError."""
        found = self._get(path)
        if found is not None:
            Manifest.parse(found[0], f"{self.url}/{path}").drop_index()

    @override
    def digests(self, name: str) -> dict[str, str]:
        path = f"versions/{name}.json"
        found = self._get(path)
        try:
            files = {} if found is None else orjson.loads(found[0])["files"]
            return {str(name): str(entry["sha256"]) for name, entry in files.items()}
        except (ValueError, LookupError, TypeError, AttributeError):
            what, hint = "this is not the manifest of a version", "Remove it there; until then nothing old is removed"
            raise PublishError(what, where=f"{self.url}/{path}", hint=hint) from None

    def _delete(self, path: str) -> None:
        with self._translating_errors():
            self.store.delete(path)

    def _write_pointer(self, pointer: Pointer, state: str | None) -> str:
        raw = orjson.dumps({"live": pointer.live, "past": pointer.past, "last": pointer.last}, option=orjson.OPT_INDENT_2)
        return self._write(_LIVE, raw, state)

    def _write(self, path: str, content: bytes, state: str | None) -> str:
        """Replace an object by a conditional put; return its new tag.

        Args:
            path: path of the object.
            content: its new content.
            state: its expected tag; None if it must not exist.

        Raises:
            VersionMovedError: The object has a different tag.
        """
        try:
            mode: Any = "create" if state is None else {"e_tag": state}
            with self._translating_errors():
                return str(self.store.put(path, content, mode=mode)["e_tag"])
        except (AlreadyExistsError, PreconditionError):
            raise VersionMovedError(
                "another machine has changed it meanwhile", where=f"{self.url}/{path}", hint="Start again from the live version"
            ) from None

    def _upload(self, path: str, file: Path, *, create: bool = False) -> None:
        with self._translating_errors():
            if create:
                with suppress(FileNotFoundError):
                    self.store.head(path)
                    return
            self.store.put(path, file)

    def _get(self, path: str) -> tuple[bytes, str] | None:
        """Return content and tag of an object; None if it does not exist."""
        with self._translating_errors(), suppress(FileNotFoundError):
            found = self.store.get(path)
            return bytes(found.bytes()), str(found.meta["e_tag"])
        return None

    def _download(self, digest: str, to: Path) -> int:
        actual, size = sha256(), 0
        with self._translating_errors(), to.open("wb") as file:
            for chunk in self.store.get(f"files/{digest}").stream(min_chunk_size=_CHUNK):
                size += file.write(chunk)
                actual.update(chunk)
        if actual.hexdigest() != digest:
            raise BundleError(
                "a file of the depot was changed after it was stored",
                where=f"{self.url}/files/{digest}",
                why=f"its SHA-256 is {actual.hexdigest()}",
                hint="Remove it there, and publish again",
            )
        return size

    def _list(self, prefix: str) -> dict[str, datetime]:
        """Return the time of the last modification of each object, by path."""
        with self._translating_errors():
            return {entry["path"]: entry["last_modified"] for page in self.store.list(prefix) for entry in page}

    @contextmanager
    def _translating_errors(self) -> Iterator[None]:
        """Raise errors of the store as BundleError or PublishError."""
        try:
            yield
        except (AlreadyExistsError, PreconditionError):
            raise
        except FileNotFoundError as error:
            raise BundleError("the depot lacks a file of the version", where=self.url, why=_first_line(error)) from None
        except BaseError as error:
            raise PublishError(
                "the depot does not answer", where=self.url, why=_first_line(error), hint="Check the object store"
            ) from None


def open_s3(url: str, without: frozenset[str] = frozenset()) -> ObjectDepot:
    """Open a depot, without a call to it.

    Args:
        url: its address, `s3://BUCKET/PREFIX`.
        without: names of files that `fetch` does not download.

    Raises:
        ConfigError: The address is malformed.
    """
    if not url.startswith("s3://"):
        raise ConfigError("invalid address of a depot", where="depot", hint="Give s3://BUCKET/PREFIX")
    http = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    options: Any = {"allow_http": http, "timeout": "60s", "connect_timeout": "5s"}
    retries: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
    try:
        return ObjectDepot(url, S3Store.from_url(url, client_options=options, retry_config=retries), without)
    except (BaseError, ValueError) as error:
        raise ConfigError("invalid address of a depot", where="depot", why=_first_line(error)) from None


def _name(path: str) -> str:
    return path.removeprefix("versions/").removesuffix(".json")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
