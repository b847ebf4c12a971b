import pytest

from recall.cli.output import show, show_table


def test_a_cell_with_control_characters_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(["item", "title"], [["a", "A story.\r\nOf two\x1b[31m lines\u202e"], ["bb", "x"]])
    assert capsys.readouterr().out.splitlines() == ["item  title", "a     A story. Of two [31m lines", "bb    x"]


def test_further_lines_of_a_result_are_indented(capsys: pytest.CaptureFixture[str]) -> None:
    show({"model": 1, "fields": "age\nsex"})
    assert capsys.readouterr().out == "model   1\nfields  age\n        sex\n"
