"""The configuration that a race ends in: its winner, trained on everything.

The test part stays as it is.
"""

import json
import os
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from recall.config import ColumnSplit, DataConfig, HashSplit, LastSplit, RunConfig, TimeSplit, parse_config
from recall.errors import ConfigError, TrainingError
from recall.training.race.entrant import merged
from recall.training.race.recipes import Values


def resolved(config: RunConfig, values: Values) -> RunConfig:
    """Return the configuration of the final training, whose objective is the winner's.

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

    The test part stays as it is.

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


_SECTIONS = ("fields", "model", "train")


def as_in_bundle(config: RunConfig, recorded: dict[str, JsonValue], version: str) -> RunConfig:
    """Return a configuration of "auto" with what the race behind a bundle chose.

    Args:
        config: of the run that goes on from the bundle.
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
    changed: Values = {name: recorded[name] for name in _SECTIONS if name in recorded}
    split = {name: data[name] for name in ("split", "carve", "carve_last", "attributes") if name in data}
    return parse_config({**plain, **changed, "data": {**plain.get("data", {}), **split}}, where=f"bundle {version}")


# A race is kept beside the checkpoint, so that an interrupted run goes on with the same winner.


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
