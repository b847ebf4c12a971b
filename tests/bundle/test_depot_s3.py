"""Machines share versions through a bucket: whole ones only, one live, and only new files are fetched."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import orjson
import pytest

from recall.bundle.activation import activate, fetch_version, follow, list_versions, previous
from recall.bundle.depot import VARIABLE
from recall.bundle.files import USERS
from recall.bundle.manifest import MANIFEST
from recall.bundle.reader import load_bundle
from recall.bundle.versions import HISTORY, SCENARIOS, live_name, open_depot, past, resolve
from recall.bundle.writer import BundleWriter
from recall.errors import BundleError, ConfigError, PublishBusyError, PublishError, VersionMovedError
from recall.publish.derived import compact
from recall.serving.recommender import Recommender
from tests.bundle.s3 import s3_bucket
from tests.bundle.test_writer import write_copy

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    with s3_bucket() as address:
        yield address


@pytest.fixture
def url(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty depot, which commands use."""
    found = f"{bucket}/{tmp_path.name}"
    monkeypatch.setenv(VARIABLE, found)
    return found


def publish_again(root: Path, name: str) -> str:
    """Publish a version with other contents; return its name."""
    with BundleWriter.open(root) as writer:
        write_copy(writer, load_bundle(root), name=name)
        return writer.publish(Recommender.load)[0].name


def objects(url: str) -> dict[str, bytes]:
    store = open_depot(url).store  # type: ignore[attr-defined]
    return {one["path"]: bytes(store.get(one["path"]).bytes()) for part in store.list() for one in part}


def test_a_version_travels_with_its_past_and_its_presets(url: str, root: Path, tmp_path: Path) -> None:
    first = live_name(root)
    (root / SCENARIOS).write_text("[home]\nn = 5\n")
    second = publish_again(root, "second")
    other = tmp_path / "other"
    follow(other, open_depot())
    assert live_name(other) == second
    assert (other / SCENARIOS).read_text() == "[home]\nn = 5\n"
    assert (resolve(other) / MANIFEST).read_bytes() == (resolve(root) / MANIFEST).read_bytes()
    assert load_bundle(other).manifest.version == second
    assert past(other) == [first]
    assert not list((other / "staging").iterdir())
    before = (resolve(other) / USERS).stat().st_ino
    third = publish_again(root, "third")
    stored = objects(url)
    follow(other, open_depot())
    assert live_name(other) == third
    assert (resolve(other) / USERS).stat().st_ino == before  # of equal content: linked, not fetched
    assert objects(url) == stored
    assert sum(path.startswith("files/") for path in stored) == len(load_bundle(root).manifest.files)  # all three have the same


def test_only_files_with_another_digest_are_fetched(url: str, root: Path, tmp_path: Path, live: Recommender) -> None:
    publish_again(root, "second")
    other = tmp_path / "other"
    follow(other, open_depot())
    live.items.upsert({"fresh": {"price": 3.0}})
    report = compact(root)
    assert report is not None
    name = live_name(root)
    moved = fetch_version(other, name, open_depot())
    sizes = {file: entry.bytes for file, entry in load_bundle(root).manifest.files.items()}
    same = {USERS, "encoder.json", "vocabularies.parquet", "tables.safetensors"}
    assert moved == sum(size for file, size in sizes.items() if file not in same)


def test_going_back_and_forth_reaches_every_machine(url: str, root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    first, second = live_name(root), publish_again(root, "second")
    follow(other, open_depot())
    assert activate(other, first) == second  # which this machine has never had
    assert (live_name(other), past(other)) == (first, [])
    follow(root, open_depot())
    assert (live_name(root), past(root)) == (first, [])
    with pytest.raises(BundleError, match="no version to go back to"):
        previous(root)
    activate(root, second)
    follow(other, open_depot())
    assert previous(other).name == first
    with pytest.raises(VersionMovedError, match=f"version {second} is live"):
        activate(other, first, expected=first)
    with pytest.raises(BundleError, match="there is no version 000099-00000000"):
        activate(other, "000099-00000000")


def test_of_two_publishers_one_is_refused_and_numbers_are_given_once(url: str, root: Path, tmp_path: Path) -> None:
    publish_again(root, "first")
    other = tmp_path / "other"
    follow(other, open_depot())
    depot = open_depot()
    before = depot.read()
    name = publish_again(other, "theirs")
    with pytest.raises(VersionMovedError):
        depot.set_live("000001-00000000", before)
    with pytest.raises(VersionMovedError):
        depot.reserve_number(before, 0)
    mine = publish_again(root, "mine")  # made from what was live before, but nothing said that it must be
    assert int(mine[:6]) == int(name[:6]) + 1
    assert len({one.folder.name[:6] for one in list_versions(root)} | {name[:6]}) == len(list_versions(root)) + 1
    follow(other, depot)
    assert live_name(other) == mine


def test_a_folder_that_never_followed_the_depot_does_not_publish_to_it(url: str, root: Path, tmp_path: Path) -> None:
    foreign = Path(shutil.copytree(root, tmp_path / "foreign"))
    (live,) = (resolve(root).name,)
    publish_again(root, "second")
    (foreign / "CURRENT").unlink()
    (foreign / "versions" / live).rename(foreign / "copy")
    with BundleWriter.open(foreign) as writer:
        write_copy(writer, load_bundle(foreign / "copy"), name="demo")
        with pytest.raises(VersionMovedError, match="has never followed it"):
            writer.publish(Recommender.load)
    stored = objects(url)
    follow(foreign, open_depot())
    publish_again(foreign, "third")
    assert len(objects(url)) > len(stored)


def test_a_compaction_of_an_older_version_is_refused(url: str, root: Path, tmp_path: Path, live: Recommender) -> None:
    publish_again(root, "first")
    live.items.upsert({"fresh": {}})
    depot = open_depot()
    with depot.lease("compacting"), pytest.raises(PublishBusyError, match="another machine holds the lease"):
        compact(root)
    with depot.lease("compacting"):
        pass  # it was given back
    assert compact(root) is not None


@pytest.mark.usefixtures("url")
def test_a_lease_of_a_machine_that_died_ends() -> None:
    depot = open_depot()
    depot.store.put("leases/x.json", b'{"holder": "gone", "until": 1}')  # type: ignore[attr-defined]
    with depot.lease("x"):
        with pytest.raises(PublishBusyError, match="another machine holds the lease"), depot.lease("x"):
            pass
        depot.store.put("leases/x.json", b'{"holder": "late", "until": 4e9}')  # type: ignore[attr-defined]
    with pytest.raises(PublishBusyError), depot.lease("x"):  # it is not taken away from its new holder
        pass


def test_a_changed_file_in_the_store_is_refused(url: str, root: Path, tmp_path: Path) -> None:
    publish_again(root, "second")
    other = tmp_path / "other"
    follow(other, open_depot())
    served = live_name(other)
    depot = open_depot()
    name = publish_again(root, "third")
    manifest = load_bundle(root).manifest
    shutil.rmtree(other / "versions" / served)
    shutil.copytree(root / "versions" / served, other / "versions" / served)
    digest = manifest.files["tables.safetensors"].sha256
    content = bytearray(objects(url)[f"files/{digest}"])
    content[-1] ^= 1
    depot.store.put(f"files/{digest}", bytes(content))  # type: ignore[attr-defined]
    shutil.rmtree(other / "versions" / served)  # nothing to link to
    with pytest.raises(BundleError, match="was changed after it was stored") as raised:
        follow(other, depot)
    assert raised.value.where.endswith(digest)
    assert not (other / "versions" / name).exists()
    depot.store.delete(f"files/{digest}")  # type: ignore[attr-defined]
    with pytest.raises(BundleError, match="lacks a file"):
        follow(other, depot)
    manifest_path = f"versions/{name}.json"
    values = orjson.loads(objects(url)[manifest_path])
    depot.store.put(manifest_path, orjson.dumps(values | {"files": {"../x": values["files"]["encoder.json"]}}))  # type: ignore[attr-defined]
    with pytest.raises(BundleError):
        follow(other, depot)
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_a_publisher_that_dies_leaves_no_half_version(url: str, root: Path, tmp_path: Path) -> None:
    publish_again(root, "second")
    served = live_name(root)
    script = f"""
import sys
from pathlib import Path
from tests.bundle.test_depot_s3 import publish_again
print("go", flush=True)
publish_again(Path({str(root)!r}), sys.argv[1])
print("done", flush=True)
"""
    other = tmp_path / "other"
    for number in range(4):
        command = [sys.executable, "-c", script, f"killed {number}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.1 + 0.08 * number)
            process.send_signal(signal.SIGKILL)
            done = "done" in process.stdout.read()
        follow(other, open_depot())
        name = live_name(other)
        assert done or int(name[:6]) >= int(served[:6])
        assert load_bundle(other).manifest.version == name  # whole
        for path in objects(url):
            if path.startswith("versions/"):
                activate(other, path[len("versions/") : -len(".json")])
                load_bundle(other)
        follow(root, open_depot())


def test_old_versions_and_their_files_are_removed(url: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [publish_again(root, f"{number}") for number in range(4)]
    depot = open_depot()
    depot.prune(2)
    assert sum(path.startswith("versions/") for path in objects(url)) == 5  # all are young
    depot.store.put("files/" + "0" * 64, b"unused")  # type: ignore[attr-defined]
    monkeypatch.setattr("recall.bundle.depot_s3._MIN_AGE", timedelta(0))
    depot.prune(2)
    stored = objects(url)
    assert {path for path in stored if path.startswith("versions/")} == {f"versions/{name}.json" for name in names[-2:]}
    assert "files/" + "0" * 64 not in stored
    depot.prune(2)
    assert {name for name in stored if name.startswith("files/")} == {
        f"files/{e.sha256}" for e in load_bundle(root).manifest.files.values()
    }


def test_a_file_that_another_publisher_removes_before_it_sees_the_manifest_is_sent_again(
    url: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recall.bundle.depot_s3 import ObjectDepot

    publish_again(root, "first")
    digest, put = load_bundle(root).manifest.files["encoder.json"].sha256, ObjectDepot._upload

    def removing(depot: ObjectDepot, path: str, file: Path, *, create: bool = False) -> None:
        if path.startswith("versions/"):
            depot.store.delete(f"files/{digest}")
        put(depot, path, file, create=create)

    with monkeypatch.context() as patched:
        patched.setattr(ObjectDepot, "_upload", removing)
        second = publish_again(root, "second")
    follow(tmp_path / "other", open_depot())
    assert load_bundle(tmp_path / "other").manifest.version == second


def test_a_damaged_manifest_in_the_store_stops_removal_and_no_publisher(
    url: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish_again(root, "first")
    depot = open_depot()
    depot.store.put(f"versions/{first}.json", b'{"files": [')  # type: ignore[attr-defined]
    monkeypatch.setattr("recall.bundle.depot_s3._MIN_AGE", timedelta(0))
    before = objects(url)
    with pytest.raises(PublishError, match="not the manifest of a version"):
        depot.prune(2)
    assert objects(url) == before
    with BundleWriter.open(root) as writer:
        write_copy(writer, load_bundle(root), name="second")
        second = writer.publish(Recommender.load, keep=2)[0].name
    assert depot.read().live == live_name(root) == second


def test_a_pointer_to_no_version_changes_nothing(url: str, root: Path) -> None:
    publish_again(root, "first")
    served, depot = live_name(root), open_depot()
    depot.store.put("live.json", b'{"live": "not-one", "past": [], "last": 9}')  # type: ignore[attr-defined]
    with pytest.raises(BundleError, match="'not-one' is not a name of a version"):
        follow(root, depot)
    with pytest.raises(PublishError, match="names 'not-one' as live"):
        publish_again(root, "second")
    assert live_name(root) == served


def test_a_store_that_does_not_answer_changes_nothing(
    url: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_again(root, "second")
    other = tmp_path / "other"
    follow(other, open_depot())
    served = live_name(other)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(PublishError, match="the depot does not answer"):
        follow(other, open_depot())
    with pytest.raises(PublishError, match="the depot does not answer"):
        publish_again(root, "third")
    assert live_name(other) == live_name(root) == served


def test_the_setting_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not open_depot("").shared
    pytest.importorskip("obstore")
    with pytest.raises(ConfigError, match="invalid address of a depot"):
        open_depot("http://bucket")
    monkeypatch.delenv(VARIABLE, raising=False)
    assert not open_depot().shared


def test_nothing_is_live_in_an_empty_depot(url: str, tmp_path: Path) -> None:
    follow(tmp_path / "other", open_depot())
    assert not (tmp_path / "other" / HISTORY).exists()


def test_a_version_is_fetched_without_some_files(url: str, root: Path, tmp_path: Path) -> None:
    publish_again(root, "second")
    replica = tmp_path / "replica"
    follow(replica, open_depot(url, frozenset({USERS})))
    folder = resolve(replica)
    assert {one.name for one in folder.iterdir()} == {one.name for one in resolve(root).iterdir()} - {USERS}
    with pytest.raises(BundleError, match=r"missing.*--exported-users redis"):
        load_bundle(replica)
    assert load_bundle(replica, users=False).manifest.version == live_name(root)
    name = publish_again(root, "third")
    assert fetch_version(replica, name, open_depot()) >= (resolve(root) / USERS).stat().st_size  # no version here has it
    assert load_bundle(replica / "versions" / name).manifest.name == "third"
