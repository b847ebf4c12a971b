import pytest

from recall.data.column_names import fallback_id_column, id_column, table_of_file


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
        ("all_review_2024.json", "interactions"),
        ("users_new.csv", "users"),  # a known word is before singulars such as new
        ("profiles.csv", "users"),
        ("readme.txt", None),
    ],
)
def test_a_file_is_a_table_by_its_name(file: str, table: str | None) -> None:
    assert table_of_file(file) == table


@pytest.mark.parametrize(
    ("columns", "user"),
    [
        (["Customer Note", "SKU"], None),
        (["Customer Note", "Customer Name"], "Customer Name"),
        (["user_agent", "page"], None),
        (["customer_type_id", "x"], "customer_type_id"),
        (["MITGLIEDSNR", "x"], "MITGLIEDSNR"),
        (["Kd-Nr", "x"], "Kd-Nr"),
    ],
)
def test_a_description_of_users_is_not_their_id(columns: list[str], user: str | None) -> None:
    assert id_column(columns, "user") == user


def test_compounds_name_ids() -> None:
    assert fallback_id_column(["DATUM", "KARTENNR"], "user") == "KARTENNR"
