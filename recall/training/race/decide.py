"""Race for the objective of a run, and the configuration that the race ends in.

The winner is trained on everything except the test part, which does not change.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from recall._progress import note, stage
from recall.bundle.reader import load_bundle
from recall.config import AutoConfig, ColumnSplit, DataConfig, HashSplit, LastSplit, RunConfig, TimeSplit, parse_config
from recall.data.dataset import Dataset
from recall.data.tables import Tables
from recall.errors import ConfigError, TrainingError
from recall.evaluation.bootstrap import Estimate
from recall.training.checkpoint import checkpoint_path
from recall.training.race.entrant import Entrant, merged, with_validation
from recall.training.race.race import RaceResult, race
from recall.training.race.recipes import Values
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
        raced = race(judged, validated, seconds, _report_entrant)
    note(*report_lines(raced))
    root.mkdir(parents=True, exist_ok=True)
    save_race(kept, raced.values, raced.record())
    return resolved(config, raced.values), raced.record(), kept


def of_bundle(config: RunConfig, source: Path) -> RunConfig:
    """Return the configuration to continue from a bundle with.

    "auto" is replaced by the choice of the bundle's race.

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


def _report_entrant(entrant: Entrant) -> None:
    if entrant.fault:
        note(f"race: {entrant.name} failed: {entrant.fault}")
    elif entrant.best is not None:
        note(
            f"race: {entrant.metric} {entrant.figure:.4f} at sweep {entrant.best_sweep} of {len(entrant.figures)}, "
            f"{entrant.seconds + entrant.validation_seconds:5.1f} s  {entrant.name}"
        )


def report_lines(raced: RaceResult) -> Iterator[str]:
    """Describe a race: what ran, and the figures with intervals.

    Args:
        raced: its result.
    """
    of = "all users" if raced.share == 1 else f"{raced.share:.0%} of the users"
    yield f"{raced.metric} on {raced.requests:,} validation requests, of {of}, with 95 % intervals:"
    for one, found in raced.placed:
        yield f"  {found.interval()}  {one.name}"
    yield f"  {raced.popularity.interval()}  popularity, without training"
    if not raced.beats_popularity:
        difference = raced.over_popularity.difference.interval("+")
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
            parts.append(f"{Estimate.model_validate(difference).interval('+')} {over}")
    return ", ".join(parts)


def resolved(config: RunConfig, values: Values) -> RunConfig:
    """Return the configuration of the final training, with the winner's objective.

    Args:
        config: with `train.objective` "auto".
        values: of the winner.
    """
    train = dict(cast(Values, values["train"]))
    kept = config.train.model_dump(mode="json", exclude_unset=True, include={"new_items", "stopping"})
    whole = config.model_copy(update={"data": on_everything(config.data)})
    return merged(whole, {**values, "train": {**train, **kept}})


def on_everything(data: DataConfig) -> DataConfig:
    """Return the data with a split in which the validation part trains.

    The test part does not change.

    Args:
        data: as configured.
    """
    split = data.split
    match split:
        case ColumnSplit():
            split = split.model_copy(update={"train": (*split.train, *split.valid), "valid": ()})
        case LastSplit():
            split = split.model_copy(update={"valid": 0})
        case TimeSplit():
            split = split.model_copy(update={"valid": None})
        case HashSplit():
            split = split.model_copy(update={"valid": 0.0})
    return data.model_copy(update={"split": split, "carve": 0.0, "carve_last": 0})


def as_in_bundle(config: RunConfig, recorded: dict[str, JsonValue], version: str) -> RunConfig:
    """Return a configuration of "auto" with the choice of a bundle's race.

    Args:
        config: of the run that continues from the bundle.
        recorded: configuration in the bundle's manifest.
        version: of the bundle, for errors.

    Raises:
        ConfigError: The bundle records no objective, or none that can be trained.
    """
    plain = config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    data = recorded.get("data")
    if not isinstance(recorded.get("train"), dict) or not isinstance(data, dict):
        raise ConfigError(
            f'bundle {version} records no objective to take in place of "auto"',
            where="train.objective",
            hint="Name the objective in the configuration",
        )
    changed: Values = {name: recorded[name] for name in ("fields", "model", "train") if name in recorded}
    split = {name: data[name] for name in ("split", "carve", "carve_last", "attributes") if name in data}
    return parse_config({**plain, **changed, "data": {**plain.get("data", {}), **split}}, where=f"bundle {version}")


# A race is kept beside the checkpoint, so that an interrupted run continues with the same winner.


def save_race(path: Path, values: Values, record: JsonValue) -> None:
    """Write the result of a race atomically.

    Args:
        path: of the file; its folder exists.
        values: of the winner.
        record: for the manifest.
    """
    staged = path.with_name(path.name + ".part")
    staged.write_text(json.dumps({"values": values, "record": record}), encoding="utf-8")
    os.replace(staged, path)


def load_race(path: Path) -> tuple[Values, JsonValue]:
    """Read the result of a race: the winner's values, and the record.

    Args:
        path: of the file.

    Raises:
        TrainingError: It is damaged.
    """
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return kept["values"], kept["record"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            "the kept race is damaged", where=str(path), why=str(error), hint="Train with --restart, which races again"
        ) from None
