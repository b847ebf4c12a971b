"""Race for the objective of a run, with progress on stderr."""

from collections.abc import Iterator
from pathlib import Path

from pydantic import JsonValue

from recall._progress import note, stage
from recall.bundle.reader import load_bundle
from recall.config import AutoConfig, RunConfig
from recall.data.dataset import Dataset
from recall.data.tables import Tables
from recall.training.checkpoint import checkpoint_path
from recall.training.race.entrant import Entrant, with_validation
from recall.training.race.race import Raced, race
from recall.training.race.winner import as_in_bundle, load_race, resolved, save_race
from recall.training.train import run_fingerprint


def decide(
    config: RunConfig, dataset: Dataset, tables: Tables, root: Path, restart: bool, seconds: float | None
) -> tuple[RunConfig, JsonValue, Path]:
    """Race for the objective of a run, with progress on stderr.

    A race whose training was interrupted is not run again.

    Args:
        config: with `train.objective` "auto".
        dataset: as configured.
        tables: of the run, as they were opened.
        root: where to publish.
        restart: race again.
        seconds: of the race; None for the usual time.

    Returns:
        The configuration of the winner, the record of the race, and the file that keeps both until the model is published.

    Raises:
        ConfigError: There is nothing to validate on.
        TrainingError: No recipe could be trained, or the kept race is damaged.
    """
    kept = checkpoint_path(root, run_fingerprint(config, dataset)).with_suffix(".race.json")
    if kept.exists() and not restart:
        values, record = load_race(kept)
        note(f"the race of an interrupted run was kept in {kept}; --restart races again")
        return resolved(config, values), record, kept
    judged, validated = with_validation(config, dataset, tables)
    with stage("race"):
        raced = race(judged, validated, seconds, _left)
    for line in report_lines(raced):
        note(line)
    root.mkdir(parents=True, exist_ok=True)
    save_race(kept, raced.values, raced.record())
    return resolved(config, raced.values), raced.record(), kept


def of_bundle(config: RunConfig, source: Path) -> RunConfig:
    """Return the configuration to go on from a bundle with.

    "auto" is what the race behind the bundle chose.

    Args:
        config: of the run.
        source: the bundle.

    Raises:
        ConfigError: The bundle records no objective.
    """
    if not isinstance(config.train, AutoConfig):
        return config
    manifest = load_bundle(source, verify=False, index=False).manifest
    return as_in_bundle(config, dict(manifest.config), manifest.version)


def _left(entrant: Entrant) -> None:
    if entrant.fault:
        note(f"race: {entrant.name} failed: {entrant.fault}")
    elif entrant.figures:
        note(
            f"race: {entrant.metric} {entrant.figure:.4f} at sweep {entrant.best_sweep} of {len(entrant.figures)}, "
            f"{entrant.seconds + entrant.looking:5.1f} s  {entrant.name}"
        )


def report_lines(raced: Raced) -> Iterator[str]:
    """Describe a race: what ran, and the figures with intervals.

    Args:
        raced: its result.
    """
    of = "all users" if raced.share == 1 else f"{raced.share:.0%} of the users"
    yield f"{raced.metric} on {raced.requests:,} validation requests, of {of}, with 95 % intervals:"
    for one in raced.placed:
        yield f"  {_interval(one.estimate.model_dump())}  {one.name}"
    yield f"  {_interval(raced.popularity.model_dump())}  popularity, which nothing is trained for"
    if not raced.beats_popularity:
        difference = _signed(raced.over_popularity.difference.model_dump())
        yield (
            f"WARNING: NO RECIPE BEATS POPULARITY beyond chance: the best differs from it by {difference}. "
            "The data may be too few, or its columns say little; a list of the most popular items may serve as well"
        )


def winner_line(record: JsonValue) -> str:
    """Describe the winner and its lead, from the record of a race."""
    assert isinstance(record, dict)
    parts = [f"{record['winner']}; {record['metric']} on {record['requests']:,} validation requests"]
    for key, over in (
        ("lead", "over the second"),
        ("over_default", "over the default square loss"),
        ("over_popularity", "over popularity"),
    ):
        if isinstance(difference := record[key], dict):
            parts.append(f"{_signed(difference)} {over}")
    return ", ".join(parts)


def _interval(estimate: JsonValue) -> str:
    assert isinstance(estimate, dict)
    value, low, high = (estimate[part] for part in ("value", "low", "high"))
    return f"{value:.4f}" if low is None else f"{value:.4f} [{low:.4f}, {high:.4f}]"


def _signed(estimate: JsonValue) -> str:
    assert isinstance(estimate, dict)
    value, low, high = (estimate[part] for part in ("value", "low", "high"))
    return f"{value:+.4f}" if low is None else f"{value:+.4f} [{low:+.4f}, {high:+.4f}]"
