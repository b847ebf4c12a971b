import pytest

from recall.data.column_names import table_named


@pytest.mark.parametrize(
    ("file", "table"),
    [
        ("visits.zip", "interactions"),
        ("loans.txt", "interactions"),
        ("Ausleihen.csv", "interactions"),
        ("user_bookings.csv", "interactions"),  # the last word decides
        ("classes.csv", "items"),
        ("Bücher.csv", "items"),
        ("library patrons.csv", "users"),
        ("readme.txt", None),
    ],
)
def test_a_file_is_a_table_by_its_name(file: str, table: str | None) -> None:
    assert table_named(file) == table
