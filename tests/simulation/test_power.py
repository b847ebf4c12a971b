"""Power failures at any system call: acknowledged changes survive, and a missing fsync is found."""

from pathlib import Path

import pytest

from recall.bundle.versions import resolve
from tests.simulation import logs, power, publishing, roots, shop
from tests.simulation.__main__ import _power
from tests.simulation.power import Found
from tests.straced import needs_strace

pytestmark = needs_strace

CRASHES = 100


@pytest.fixture(scope="module")
def template(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The initial folder of the publishing workload."""
    return publishing.template_of(resolve(published), tmp_path_factory.mktemp("publishers") / "disk")


@pytest.fixture(scope="module")
def root(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The initial folder of the root workload."""
    return shop.fresh_root(place, tmp_path_factory.mktemp("roots") / "disk" / shop.HERE).parent


def of_logs(seed: int, fault: str = "", count: int = CRASHES) -> Found:
    return power.crashes(power.record("log", seed, fault=fault), logs.check, seed, count)


def of_publishers(template: Path, seed: int, fault: str = "", count: int = CRASHES) -> Found:
    return power.crashes(power.record("publish", seed, template, fault), publishing.check, seed, count)


def of_roots(root: Path, seed: int, fault: str = "", count: int = CRASHES) -> Found:
    return power.crashes(power.record("root", seed, root, fault), roots.check, seed, count)


def test_acknowledged_changes_survive_a_power_failure() -> None:
    recording = power.record("log", 1)
    assert len(recording.steps) > 300
    assert power.crashes(recording, logs.check, 1, CRASHES) == Found(CRASHES, [])


def test_a_log_without_fsync_is_found() -> None:
    found = of_logs(1, "synchronous-off")
    assert len(found.violations) > CRASHES // 2
    assert any("items: found [], expected [" in one for one in found.violations)  # acknowledged but lost


def test_published_versions_survive_a_power_failure(template: Path) -> None:
    assert of_publishers(template, 2) == Found(CRASHES, [])


def test_a_publisher_that_does_not_fsync_folders_is_found(template: Path) -> None:
    found = of_publishers(template, 2, "folders-not-synced")
    assert any("neither a bundle nor a folder of published versions" in one for one in found.violations)


@pytest.mark.slow
def test_a_root_survives_a_power_failure(root: Path) -> None:
    assert of_roots(root, 2, count=20) == Found(20, [])


@pytest.mark.slow
def test_the_command_simulates_power_failures_in_each_workload(place: Path) -> None:
    assert _power(place, 2) == Found(300, [])


@pytest.mark.slow
def test_equal_seeds_record_equal_steps(template: Path, root: Path) -> None:
    for given in (("log", 3, None), ("publish", 3, template), ("root", 3, root)):
        first, second = (power.record(*given) for _ in range(2))
        assert first.digest() == second.digest()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4, 6))
def test_more_change_logs_survive_power_failures(seed: int) -> None:
    assert of_logs(seed, count=500) == Found(500, [])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4, 6))
def test_more_publications_survive_power_failures(template: Path, seed: int) -> None:
    assert of_publishers(template, seed, count=500) == Found(500, [])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [7059])
def test_more_roots_survive_power_failures(root: Path, seed: int) -> None:
    assert of_roots(root, seed, count=200) == Found(200, [])


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["synchronous-off", "folders-not-synced", "files-not-synced"])
def test_a_root_without_fsync_is_found(root: Path, fault: str) -> None:
    assert of_roots(root, 2, fault).violations


@pytest.mark.slow
def test_a_log_with_rare_fsyncs_is_found() -> None:
    assert any("Broken: items" in one for one in of_logs(2, "synchronous-normal").violations)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "symptom"),
    [
        ("files-not-synced", "is not a name of a version"),
        ("current-first", "does not exist"),
        ("current-in-place", "is not a name of a version"),
    ],
)
def test_other_bugs_of_a_publisher_are_found(template: Path, fault: str, symptom: str) -> None:
    assert any(symptom in one for one in of_publishers(template, 2, fault, 400).violations)
