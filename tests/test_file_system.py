from pathlib import Path

import pytest

from recall._file_system import replaced_file


def fill_disk(path: Path) -> None:
    path.write_text("half")
    raise OSError("disk full")


def test_a_file_is_replaced_only_when_the_block_has_filled_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), replaced_file(path) as staged:
        fill_disk(staged)
    assert [one.name for one in tmp_path.iterdir()] == ["a.csv"]
    assert path.read_text() == "old"
    with replaced_file(path) as staged:
        staged.write_text("new")
        assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["a.csv"]
    assert path.read_text() == "new"
