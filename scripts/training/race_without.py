"""Race without recipes tuned on one data set; `recall train` continues it.

python scripts/training/race_without.py CONFIG DATA ROOT NAME
"""

import sys
from pathlib import Path

from recall.config import load_config
from recall.data.dataset import dataset_of, open_tables
from recall.training.checkpoint import checkpoint_path
from recall.training.race.decide import report_lines, save_race
from recall.training.race.entrant import with_validation
from recall.training.race.race import race
from recall.training.train import run_fingerprint


def main(config_file: Path, data: Path, root: Path, name: str) -> None:
    """Race, and keep the result as an interrupted run does.

    Args:
        config_file: with the objective "auto".
        data: folder of the tables.
        root: where the model will be published.
        name: of the data set whose own recipes are left out.
    """
    config = load_config(config_file)
    tables = open_tables(config.data, data)
    dataset = dataset_of(config, tables)
    judged, validated = with_validation(config, dataset, tables)
    raced = race(judged, validated, None, lambda entrant: print(entrant.name, entrant.figure, file=sys.stderr), without=name)
    print("\n".join(report_lines(raced)), file=sys.stderr)
    root.mkdir(parents=True, exist_ok=True)
    save_race(checkpoint_path(root, run_fingerprint(config, dataset)).with_suffix(".race.json"), raced.values, raced.record())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
