from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "arguments",
    [
        ("report", "none", "--out"),
        ("compare", "none.toml", "none", "none", "--out"),
        ("evaluate", "none.toml", "none", "--out"),
        ("evaluate", "none.toml", "none", "--report"),
        ("predict", "none", "--pairs", "none.csv", "--out"),
        ("recommend", "none", "--out"),
        ("data", "check", "none.toml", "--report"),
        ("tune", "none.toml", "--minutes", 1, "--out"),
        ("demo", "--data", "none", "--out"),
    ],
    ids=lambda arguments: " ".join(map(str, arguments)),
)
def test_what_cannot_be_written_is_refused_before_anything_is_read(run, tmp_path: Path, arguments: tuple[object, ...]) -> None:
    (tmp_path / "file").touch()
    ended = run(*arguments, tmp_path / "file" / "out.csv")
    assert ended.code == 73
    assert ended.err.splitlines()[0] == "error: the folder cannot be written"
    assert ended.err.splitlines()[2:] == [f"why:   {tmp_path / 'file'} is a file", "hint:  Name another folder"]


def test_a_folder_in_place_of_a_file_is_refused(run, tmp_path: Path) -> None:
    ended = run("recommend", "none", "--out", tmp_path.with_suffix(".csv"))
    assert ended.code != 73
    tmp_path.with_suffix(".csv").mkdir()
    ended = run("recommend", "none", "--out", tmp_path.with_suffix(".csv"))
    assert (ended.code, "error: this is a folder" in ended.err) == (73, True)
