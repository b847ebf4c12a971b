from pathlib import Path

import orjson

from recall.bundle.versions import resolve
from recall.data.synthetic import SyntheticConfig, generate


def test_the_demo_runs_every_step_on_given_tables(run, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    generate(SyntheticConfig(users=80, items=60, interactions=1_500)).write(folder, ".csv")
    ended = run("demo", "--data", folder, "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    assert "the top 10 of the model contain" in " ".join(ended.out.split())
    asked, _, answer = ended.out.partition("POST /v1/recommend ")[2].partition("\n")
    assert orjson.loads(asked)["n"] == 5
    answered = orjson.loads(answer)
    assert len(answered["items"]) == 5
    assert answered["user"] == "known"
    assert answered["bundle"] == resolve(tmp_path / "out" / "bundles").name
    assert "verified" in ended.err
    assert ended.err.rstrip().endswith("then open http://127.0.0.1:8000/")


def test_the_demo_drafts_a_configuration_for_tables_without_one(run, tmp_path: Path) -> None:
    folder, out = tmp_path / "shop", tmp_path / "out"
    folder.mkdir()
    generate(SyntheticConfig(users=80, items=60, interactions=1_500)).write(folder, ".csv")
    (folder / "recall.toml").unlink()
    out.mkdir()
    (out / "bundles").write_text("a file, in which nothing can be published")
    ended = run("demo", "--data", folder, "--out", out)
    assert ended.code == 73, ended.err
    assert f"drafted {folder / 'recall.toml'}" in ended.err
    assert run("data", "check", folder / "recall.toml").code == 0


def test_the_demo_names_errors_in_the_tables(run, tmp_path: Path) -> None:
    ended = run("demo", "--data", tmp_path, "--out", tmp_path / "out")
    assert ended.code == 65
    assert "there is no interactions.parquet" in ended.err
    missing = run("demo", "--data", tmp_path / "none", "--out", tmp_path / "out")
    assert (missing.code, str(tmp_path / "none" / "recall.toml") in missing.err) == (78, True)
    fields = (f'{side}_id = {{ side = "{side}", kind = "categorical" }}\n' for side in ("user", "item"))
    (tmp_path / "recall.toml").write_text("[fields]\n" + "".join(fields))
    found = run("demo", "--data", tmp_path, "--out", tmp_path / "out")
    assert f"error: {tmp_path / 'interactions.parquet'}: no such file" in found.err
