"""The option `--race` of `recall train`."""

import re

import typer

from recall.config import AutoConfig, RunConfig
from recall.errors import ConfigError

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def race_seconds(config: RunConfig, option: str | None) -> float | None:
    """Return the seconds that `--race` gives to a race, None where it is not given.

    Args:
        config: of the run.
        option: a duration, such as 90, 45s, 2m or 1h; None where the option is not given.

    Raises:
        BadParameter: The option must be a positive duration.
        ConfigError: The objective is not "auto".
    """
    if option is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", option.strip())
    if found is None or float(found[1]) == 0:
        raise typer.BadParameter(f"--race needs a duration such as 45s, 2m or 1h, got {option!r}")
    if not isinstance(config.train, AutoConfig):
        raise ConfigError(
            f'--race needs train.objective = "auto", got {config.train.objective!r}',
            where="--race",
            hint="Leave it out, or add --set train.objective=auto",
        )
    return float(found[1]) * _UNITS[found[2]]
