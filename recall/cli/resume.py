"""A run that goes on from a published bundle, as the command shows it. Imports torch."""

from pathlib import Path

from pydantic import JsonValue

from recall.cli import output
from recall.cli.keeping import keeping
from recall.cli.training import Run, reporter, sizes, warn
from recall.config import RunConfig
from recall.publish.export import export
from recall.training.incremental import Ground, Retrained, open_ground, retrain
from recall.training.train import TrainResult, run_fingerprint, train


def grow(
    config: RunConfig,
    source: Path,
    new: Path,
    old: Path | None,
    root: Path,
    resume: bool = False,
    compare: bool = False,
    remember: float = 1.0,
    *,
    restart: bool = False,
) -> Run:
    """Go on from a bundle with new tables and publish to `root`, saying on stderr how far it is.

    Args:
        config: of the same fields and model as the bundle.
        source: the bundle.
        new: folder of the new tables.
        old: folder of those that it was trained on, where they are at hand.
        root: where to publish.
        resume: go on from the checkpoint of the same run, which was interrupted.
        remember: without `old`, what an old observation counts beside a new one.
        restart: overwrite that checkpoint; where it is there, one of the two must be said.
        compare: also train from scratch on the same data, and give the difference.

    Raises:
        RecallError: whatever stops the run; what was live in `root` stays live.
        TrainingInterruptedError: SIGINT or SIGTERM stopped it; says how to go on.
    """
    with keeping() as kept:
        with output.stage("open the bundle, load the tables"):
            ground = open_ground(config, source, new, old, root, remember)
        checkpoint = kept.claim(root, run_fingerprint(config, ground.dataset, ground.start), resume, restart)
        if ground.overlap:
            output.note(f"warning: {ground.overlap}")
        warn(config, ground.tables, ground.dataset)
        if compare:
            ground.require_validation()
        output.note(sizes(ground.dataset, ground.encoder, config.model))
        output.note(new_values(ground))
        with output.bar("train") as move:
            trained = train(
                config, ground.dataset, ground.encoder, reporter(move), checkpoint, resume, ground.start, restart=restart
            )
        retrained = _retrained(config, ground, trained) if compare else None
        with output.stage("export, prove, index, publish"):
            metrics: dict[str, JsonValue] = {"validation": dict(trained.metrics)} if trained.metrics else {}
            metrics["growth"] = ground.record(trained, retrained)
            exported = export(
                trained.model, ground.encoder, ground.dataset, config, root, metrics, ground.source.sequence, ground.expected
            )
    return Run(ground.dataset, trained, exported)


def new_values(ground: Ground) -> str:
    """How many values each field has learnt anew, on one line."""
    named = ", ".join(f"{count:,} of {name}" for name, count in ground.values.items() if count)
    return f"new values: {named or 'none'}"


def _retrained(config: RunConfig, ground: Ground, trained: TrainResult) -> Retrained:
    output.note("from scratch, to compare:")
    with output.bar("train from scratch") as move:
        return retrain(config, ground, trained, reporter(move))
