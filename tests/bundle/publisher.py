"""Publish bundles of random bytes, in a process that a test may kill.

python -m tests.bundle.publisher ROOT TEMPLATE loop COUNT     publish COUNT times, printing each sequence
python -m tests.bundle.publisher ROOT TEMPLATE hold           stage a bundle, print "staged", and wait
python -m tests.bundle.publisher ROOT TEMPLATE lines          see `die_at_every_line`
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from recall.bundle import files, versions
from recall.bundle.manifest import Manifest


def publish_random(root: Path, template: Manifest, keep: int | None = None) -> Path:
    with versions.staging(root) as folder:
        for name in files.NAMES:
            (folder / name).write_bytes(os.urandom(3000))
        template.model_copy(update={"files": files.describe(folder)}).write(folder)
        return versions.publish(folder, root, keep=keep)


def check(root: Path) -> int:
    """Verify every byte of the live version and return its number."""
    folder = versions.resolve(root)
    manifest = Manifest.read(folder)
    assert folder.name == manifest.version
    files.check_names(folder, manifest)
    files.check_contents(folder, manifest.files, digests=True)
    return manifest.sequence


def die_at_every_line(root: Path, template: Manifest) -> None:
    """Publish in children killed at the N-th line of publish.py, for N = 1, 2, ... until one completes."""
    publish_random(root, template)
    live, deaths = check(root), 0
    while True:
        child = os.fork()
        if child == 0:
            trace_until(deaths + 1)
            publish_random(root, template)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        now = check(root)
        newest = int(versions.versions(root)[-1].name[:6])
        assert now in (live, newest), (live, now, newest)
        live = now
        for folder in versions.versions(root):  # otherwise each new version would add lines to the next publication
            if folder != versions.resolve(root):
                shutil.rmtree(folder)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        deaths += 1
    publish_random(root, template)
    assert check(root) > live
    assert [entry.name for entry in (root / "staging").iterdir() if entry.is_dir()] == []
    print(deaths)


def trace_until(last: int) -> None:
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> object:
        nonlocal lines
        if frame.f_code.co_filename != versions.__file__:
            return None
        if event == "line":
            lines += 1
            if lines == last:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)  # type: ignore[arg-type]


def main() -> None:
    root, template = Path(sys.argv[1]), Manifest.read(Path(sys.argv[2]))
    match sys.argv[3:]:
        case ["loop", count]:
            print("ready", flush=True)
            for _ in range(int(count)):
                print(publish_random(root, template).name, flush=True)
        case ["hold"]:
            with versions.staging(root):
                print("staged", flush=True)
                time.sleep(600)
        case ["lines"]:
            die_at_every_line(root, template)


if __name__ == "__main__":
    main()
