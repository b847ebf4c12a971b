import tomllib
from pathlib import Path

from recall.config import parse_config
from scripts.run_readme import blocks, with_table

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_table_of_keys_is_that_of_the_program():
    assert with_table(README) == README, "run: python scripts/run_readme.py --write"


def test_the_configuration_that_is_shown_is_one():
    shown = README.split("```toml\n")[1].split("```")[0]
    config = parse_config(tomllib.loads(shown))
    assert (config.name, config.data.time, len(config.fields)) == ("films", "when", 7)


def test_the_tour_is_marked_to_be_run():
    assert [language for language, _ in blocks(README)] == [
        "bash",
        "bash",
        "bash",
        "bash",
        "python",
        "bash",
        "python",
        "python",
        "python",
        "python",
        "bash",
        "bash",
        "python",
        "python",
    ]
    assert "recall train" in blocks(README)[0][1]


def test_the_pieces_of_data_that_are_shown_are_read():
    pieces = [block.split("```")[0] for block in README.split("```toml\n")[2:4]]
    fields = {"user_id": {"side": "user", "kind": "categorical"}, "item_id": {"side": "item", "kind": "categorical"}}
    first, second = (parse_config({"data": tomllib.loads(piece), "fields": fields}).data for piece in pieces)
    assert (first.label, first.weight, first.events.left_out) == ("clicked", "plays", ("refund",))
    assert (second.item_columns, second.nulls, second.text) == (("title", "price"), ("NA", "NULL"), ("code",))
