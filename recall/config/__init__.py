"""Configuration of a run, one TOML file: data, fields, model, training, index.

Every value is frozen once read. An unknown key is an error that suggests the nearest known one. A setting may be overridden
by its dotted path, such as `train.sweeps=4`.
"""

from recall.config.data import (
    ColumnSplit,
    DataConfig,
    EventsConfig,
    FileFormat,
    HashSplit,
    ItemsSplit,
    LastSplit,
    NoSplit,
    OutcomeConfig,
    RandomSplit,
    Split,
    TimeSplit,
    UsersSplit,
)
from recall.config.loading import load_config, parse_config
from recall.config.run import INDEX_KINDS, EvaluationConfig, ExportConfig, IndexConfig, RunConfig
from recall.config.training import (
    AutoConfig,
    FFMConfig,
    FMConfig,
    FTRLConfig,
    FwFMConfig,
    GradientConfig,
    LRConfig,
    Method,
    ModelConfig,
    OpeningConfig,
    PairwiseConfig,
    SoftmaxConfig,
    SquareConfig,
    StoppingConfig,
    Train,
)

__all__ = [
    "INDEX_KINDS",
    "AutoConfig",
    "ColumnSplit",
    "DataConfig",
    "EvaluationConfig",
    "EventsConfig",
    "ExportConfig",
    "FFMConfig",
    "FMConfig",
    "FTRLConfig",
    "FileFormat",
    "FwFMConfig",
    "GradientConfig",
    "HashSplit",
    "IndexConfig",
    "ItemsSplit",
    "LRConfig",
    "LastSplit",
    "Method",
    "ModelConfig",
    "NoSplit",
    "OpeningConfig",
    "OutcomeConfig",
    "PairwiseConfig",
    "RandomSplit",
    "RunConfig",
    "SoftmaxConfig",
    "Split",
    "SquareConfig",
    "StoppingConfig",
    "TimeSplit",
    "Train",
    "UsersSplit",
    "load_config",
    "parse_config",
]
