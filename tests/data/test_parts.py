from pathlib import Path
from typing import Any

import pytest

from recall.config import RunConfig, parse_config
from recall.data.checks import check
from recall.data.dataset import Dataset, load_dataset
from recall.data.findings import Finding
from recall.data.parts import part_findings, parts_line

FIELDS = {"user_id": {"side": "user", "kind": "categorical"}, "item_id": {"side": "item", "kind": "categorical"}}


def config(split: dict[str, Any] | None = None, **sections: Any) -> RunConfig:
    data = {"interactions": "e.csv", "time": "t", **sections.pop("data", {}), **({} if split is None else {"split": split})}
    return parse_config({"data": data, "fields": FIELDS, **sections})


def load(folder: Path, run: RunConfig, rows: list[tuple[object, ...]], head: str = "user_id,item_id,t") -> Dataset:
    (folder / "e.csv").write_text("\n".join([head, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return load_dataset(run, folder)


def grid(users: int = 10, each: int = 10, step: int = 1) -> list[tuple[object, ...]]:
    return [(f"u{user}", f"i{(user * 3 + place) % 40}", 1000 + (place * users + user) // step) for place in range(each)
            for user in range(users)]  # fmt: skip


def found(run: RunConfig, dataset: Dataset, level: str) -> list[str]:
    return [finding.message for finding in part_findings(run, dataset) if finding.level == level]


def test_the_size_of_each_part_is_reported(tmp_path: Path) -> None:
    run = config({"by": "last", "test": 1, "valid": 2})
    dataset = load(tmp_path, run, grid())
    line = "70 (70.0%, 10 users) train, 20 (20.0%, 10 users) validate, 10 (10.0%, 10 users) test"
    assert parts_line(dataset) == line
    assert found(run, dataset, "note") == [f"parts: {line}"]
    assert found(run, dataset, "warning") == []


def test_an_accurate_split_by_share_gives_no_warning(tmp_path: Path) -> None:
    run = config({"by": "time", "test": 0.9, "valid": 0.8})
    assert found(run, load(tmp_path, run, grid()), "warning") == []


def test_a_share_enlarged_by_ties_gives_a_warning(tmp_path: Path) -> None:
    run = config({"by": "time", "test": 0.9, "valid": 0.8})
    dataset = load(tmp_path, run, grid(step=50))  # two distinct times
    empty, far = found(run, dataset, "warning")
    assert empty == "data.split asks for a valid part, but no interaction is in it"
    assert far.startswith("50.0% of the rows test, where data.split asks for 10.0%: many rows share the time at the bound")


@pytest.mark.parametrize("bound", [5000.0, 1_700_000_000_000.0])
def test_a_limit_after_all_times_gives_an_empty_part(tmp_path: Path, bound: float) -> None:
    run = config({"by": "time", "test": bound})
    assert found(run, load(tmp_path, run, grid()), "warning") == [
        "data.split asks for a test part, but no interaction is in it"
    ]


def test_a_split_column_without_test_rows_is_reported(tmp_path: Path) -> None:
    run = config({"by": "column"})
    dataset = load(tmp_path, run, [("a", "x", 1, "train"), ("b", "y", 2, "valid")], "user_id,item_id,t,split")
    assert found(run, dataset, "warning") == ["data.split asks for a test part, but no interaction is in it"]


def test_a_validation_share_without_rows_is_reported(tmp_path: Path) -> None:
    run = config(data={"carve": 0.001})
    assert "asks for a valid part" in found(run, load(tmp_path, run, grid(3, 3)), "warning")[0]


def test_a_validation_share_next_to_a_validation_part_has_no_effect(tmp_path: Path) -> None:
    run = config({"by": "last"}, data={"carve": 0.3})
    assert "data.carve does nothing: the split itself gives a validation part" in found(
        run, load(tmp_path, run, grid()), "note"
    )


@pytest.mark.parametrize(("stopping", "level"), [({}, "note"), ({"stopping": {"patience": 5}}, "warning")])
def test_stopping_without_a_validation_part_reports_the_alternative(tmp_path: Path, stopping: Any, level: str) -> None:
    run = config({"by": "last", "valid": 0}, train={"sweeps": 7, **stopping})
    (message,) = [one for one in found(run, load(tmp_path, run, grid()), level) if "validates" in one]
    assert message.startswith("no interaction validates: all 7 passes are made and the last model is kept, not the best")


def test_without_a_split_only_stopping_is_reported(tmp_path: Path) -> None:
    run = config()
    dataset = load(tmp_path, run, grid())
    assert list(part_findings(run, dataset)) == []
    run = config(train={"stopping": {}})
    assert len(found(run, dataset, "warning")) == 1


def test_test_pairs_all_seen_in_training_are_reported_as_misses(tmp_path: Path) -> None:
    rows = [(f"u{user}", f"i{user}", time) for user in range(10) for time in (1, 2, 3)]
    run = config({"by": "last"})
    dataset = load(tmp_path, run, rows)
    valid, test = found(run, dataset, "warning")
    assert valid.startswith("10 of 10 validation pairs are known from before")
    assert test.startswith('10 of 10 test pairs are known from before: evaluation.mask = "user" leaves known items out')
    open_eyes = config({"by": "last"}, evaluation={"mask": "none"})
    assert found(open_eyes, dataset, "warning") == []


def test_a_few_seen_pairs_give_a_note(tmp_path: Path) -> None:
    run = config({"by": "last", "valid": 0})
    rows = [*grid(), ("u0", "i0", 9999)]
    assert any("1 of 10 test pairs are known" in one for one in found(run, load(tmp_path, run, rows), "note"))


def test_the_context_mask_covers_pairs_only_in_their_context(tmp_path: Path) -> None:
    fields = {**FIELDS, "place": {"side": "user", "kind": "categorical"}}
    rows = [(f"u{user}", "x", time, "home" if time == 1 else "work") for user in range(9) for time in (1, 2)]
    run = config({"by": "last", "valid": 0}, evaluation={"mask": "context"}).model_copy(
        update={"fields": parse_config({"fields": fields}).fields}
    )
    dataset = load(tmp_path, run, rows, "user_id,item_id,t,place")
    assert found(run, dataset, "warning") == []


@pytest.mark.parametrize("by", ["random", "users", "items"])
def test_random_shares_are_close_to_the_requested_ones(tmp_path: Path, by: str) -> None:
    run = config({"by": by, "test": 0.2, "valid": 0.1})
    dataset = load(tmp_path, run, [(f"u{n % 97}", f"i{n % 89}", n) for n in range(2000)])
    assert [one for one in found(run, dataset, "warning") if "asks for" in one] == []


def test_check_reports_all_split_findings(tmp_path: Path) -> None:
    run = config({"by": "time", "test": 99999.0})
    load(tmp_path, run, grid())
    findings: list[Finding] = check(run, tmp_path)
    assert [one.message for one in findings if one.message.startswith("parts: 100 (100.0%, 10 users) train")]
    assert [one.level for one in findings if "asks for a test part" in one.message] == ["warning"]
