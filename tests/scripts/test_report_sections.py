import pytest

from scripts.report_sections import replace_section


def test_a_section_is_added_and_then_replaced_in_its_place(tmp_path):
    path = tmp_path / "docs" / "benchmarks.md"
    replace_section(path, "a", "first\n")
    path.write_text(f"# Benchmarks\n\n{path.read_text()}\nbetween\n")
    replace_section(path, "b", "second")
    replace_section(path, "a", "  changed \\1\n\n")
    assert path.read_text() == (
        "# Benchmarks\n\n<!-- section: a -->\n\nchanged \\1\n\n<!-- end of section: a -->\n\nbetween\n\n"
        "<!-- section: b -->\n\nsecond\n\n<!-- end of section: b -->\n"
    )
    before = path.read_text()
    replace_section(path, "b", "second")
    assert path.read_text() == before


@pytest.mark.parametrize(
    "text",
    [
        "<!-- section: a -->",
        "<!-- end of section: a -->",
        "<!-- end of section: a --> <!-- section: a -->",
        "<!-- section: a --><!-- section: a --><!-- end of section: a -->",
    ],
)
def test_malformed_section_comments_are_not_changed(tmp_path, text):
    path = tmp_path / "benchmarks.md"
    path.write_text(text)
    with pytest.raises(ValueError, match="malformed"):
        replace_section(path, "a", "new")
    assert path.read_text() == text
