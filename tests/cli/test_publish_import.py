from pathlib import Path

from recall.serving.recommender import Recommender, Request

GOLDEN = Path(__file__).parents[1] / "publish" / "importers" / "golden"
TABLES = ("--mapping", GOLDEN / "mapping.csv", "--items", GOLDEN / "items.csv")


def test_a_foreign_model_becomes_a_bundle(run, tmp_path: Path) -> None:
    ended = run("import", "libfm", GOLDEN / "libfm.txt", *TABLES, "--out", tmp_path, "--json")
    assert ended.code == 0
    assert ended.json["sizes"]["items"] == 3
    assert ended.json["parity"]["largest_error"] < 1e-5
    assert ended.json["unknown"] == {"item_id": 1, "genre": 1}
    recommender = Recommender.load(tmp_path)
    assert len(recommender.recommend(Request("u1", context={"device": "web"})).items) == 3
    recommender.close()


def test_the_import_report_is_readable(run, tmp_path: Path) -> None:
    ended = run("import", "libffm", GOLDEN / "libffm.txt", *TABLES, "--out", tmp_path)
    assert ended.code == 0
    assert "ffm, 2 factors, vectors of 13 numbers" in ended.out
    assert "item values that the mapping does not name, which are ignored: 1 of item_id, 1 of genre" in ended.out


def test_xlearn_requires_the_normalisation_option(run, tmp_path: Path) -> None:
    arguments = ("import", "xlearn", GOLDEN / "xlearn_fm.txt", *TABLES, "--out", tmp_path)
    ended = run(*arguments)
    assert ended.code == 65
    assert "Add --no-norm" in ended.err
    assert run(*arguments, "--no-norm").code == 0


def test_an_unknown_kind_is_a_usage_error(run) -> None:
    assert run("import", "libmf", GOLDEN / "libfm.txt").code == 2
