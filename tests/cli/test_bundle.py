import shutil
import subprocess
import sys
from pathlib import Path

from recall.bundle.versions import resolve
from recall.publish.vector_export import FORMATS

SERVE = "import sys; from recall.cli import main; sys.argv = ['recall', 'serve', sys.argv[1]]; main()"


def test_show_describes_the_bundle(run, published: Path) -> None:
    ended = run("bundle", "show", published)
    assert ended.code == 0
    folder = resolve(published)
    for part in (
        folder.name,
        "tiny",
        "gender (user categorical)",
        "history (user history)",
        "largest error",
        "fm, 4 factors",
        "exact by faiss, finds",
    ):
        assert part in ended.out
    assert run("bundle", "show", published, "--json").json["sizes"]["items"] == 15


def test_show_reports_the_loss_of_dropped_singular_values(run) -> None:
    golden = Path(__file__).parents[1] / "golden"
    shown = run("bundle", "show", golden / "bundle_v2_fwfm").out
    assert "fwfm, 2 factors, vectors of 5 numbers; folding error" in shown
    assert "scaled to unit length" in run("bundle", "show", golden / "bundle_v2_cosine").out


def test_verify_accepts_a_good_bundle_and_refuses_a_changed_one(run, published: Path, tmp_path: Path) -> None:
    ended = run("bundle", "verify", published)
    assert ended.code == 0
    assert ended.out.startswith(f"{resolve(published).name} is valid: ")
    verified = run("bundle", "verify", published, "--json").json
    assert verified["sound"] is True
    assert verified["golden"] >= 10
    copy = tmp_path / "copy"
    shutil.copytree(published, copy)
    table = resolve(copy) / "tables.safetensors"
    raw = bytearray(table.read_bytes())
    raw[-1] ^= 1
    table.write_bytes(raw)
    ended = run("bundle", "verify", copy)
    assert ended.code == 65
    assert "tables.safetensors" in ended.err
    assert ended.out == ""


def test_a_folder_without_a_bundle_is_named(run, tmp_path: Path) -> None:
    for command in ("show", "verify"):
        ended = run("bundle", command, tmp_path)
        assert ended.code == 65
        assert str(tmp_path) in ended.err
    # separate, because the command replaces the process
    served = subprocess.run([sys.executable, "-c", SERVE, str(tmp_path)], capture_output=True, text=True, check=False)
    assert served.returncode == 65
    assert str(tmp_path) in served.stderr


def test_export_lists_the_available_formats(run, published: Path, tmp_path: Path) -> None:
    assert [run("bundle", "export", published, "--out", tmp_path / one, "--format", one).code for one in FORMATS] == [0, 0, 0]
    assert run("bundle", "export", published, "--out", tmp_path / "csv", "--format", "csv").code == 2
    ended = run("bundle", "export", published, "--out", tmp_path / "out", "--format", "npy", "--users")
    assert ended.code == 0, ended.err
    assert "15 vectors of 5 numbers" in ended.out
    assert run("bundle", "export", published, "--out", tmp_path / "out").code == 73
    assert run("bundle", "export", published, "--out", tmp_path / "other", "--format", "csv").code == 2
    assert run("bundle", "export", tmp_path / "out", "--out", tmp_path / "other").code == 65
    shown = run("bundle", "export", published, "--out", tmp_path / "other", "--json").json
    assert (shown["items"], shown["users"], shown["files"]) == (15, None, ["items.parquet", "export.json"])
