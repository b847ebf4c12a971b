"""Train and publish with progress on stderr, from tables or a bundle."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from recall._heap import release_free_memory
from recall._progress import bar, note, quiet, stage
from recall.bundle.reader import load_bundle
from recall.bundle.versions import live_name, require_writable
from recall.config import AutoConfig, ModelConfig, RunConfig
from recall.data.checks import check_loaded
from recall.data.dataset import Dataset, dataset_of, open_tables
from recall.data.findings import Finding
from recall.data.parts import parts_line
from recall.data.split import REMEMBERED
from recall.data.tables import Tables
from recall.errors import BundleError, ConfigError, TrainingInterruptedError
from recall.evaluation.data_match import match_data
from recall.evaluation.gate import Activation, GateReport, activates_at_once, require_comparable, settle
from recall.features.encoder import FeatureEncoder
from recall.index.registry import require_server
from recall.publish.export import ExportReport, export
from recall.store.users.bundle_users import SqliteUsers
from recall.training.checkpoint import checkpointed
from recall.training.distribute import on_disk, receive
from recall.training.incremental import NothingNewError, Retrained, WarmStartRun, are_remembered, prepare_warm_start, retrain
from recall.training.loop import SweepReport
from recall.training.race.decide import decide, of_bundle
from recall.training.ranks import ALONE, Ranks
from recall.training.train import TrainResult, run_fingerprint, train


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run.

    Attributes:
        dataset: what it learned from.
        trained: what was learned.
        exported: what was published.
        findings: errors and warnings about the tables; empty where they were checked before.
    """

    dataset: Dataset
    trained: TrainResult
    exported: ExportReport
    config: RunConfig
    """The configuration that was trained: where a race chose the objective, that of its winner."""
    findings: tuple[Finding, ...] = ()
    race: JsonValue = None
    """Record of the race; None without one."""
    gate: GateReport | None = None
    """Whether the version went live, and why; None where it did so unconditionally."""


def run(
    config: RunConfig,
    data: Path | Tables,
    root: Path,
    resume: bool = False,
    *,
    restart: bool = False,
    checked: bool = False,
    race: float | None = None,
    activation: Activation = "always",
    ranks: Ranks = ALONE,
) -> Run:
    """Train on the tables in `data` and publish to `root`, with progress on stderr.

    Args:
        config: of the run.
        data: folder of the tables, or the tables as `open_tables` returns them.
        root: where to publish.
        resume: continue from the checkpoint of the same run, which was interrupted.
        restart: overwrite that checkpoint. Where one exists, `resume` or `restart` must be set.
        checked: the tables were checked and the findings printed already.
        race: seconds to choose the objective "auto" in; None for `config.train.race`.
        activation: whether the new version goes live.
        ranks: of which this is rank 0; the others call `assist`.

    Raises:
        RecallError: The run failed; what was live in `root` stays live.
        TrainingInterruptedError: SIGINT or SIGTERM stopped it; says how to continue.
    """
    require_writable(root)
    require_server(config.index.kind)
    _refuse_race(config, ranks)
    with checkpointed() as kept:
        with stage("load the tables"):
            tables = data if isinstance(data, Tables) else open_tables(config.data, data)
            dataset = dataset_of(config, tables)
        note(*(finding.line for finding in dataset.assumptions))
        if activation == "if-not-worse":
            require_comparable(root, dataset, config, lambda changed: dataset_of(changed, tables))
        raced: JsonValue = None
        if isinstance(config.train, AutoConfig):
            seconds = race if race is not None else config.train.race
            config, raced, kept.race = decide(config, dataset, tables, root, restart, seconds)
            dataset = dataset_of(config, tables)
        checkpoint, _ = kept.claim(root, run_fingerprint(config, dataset), resume, restart)
        with stage("fit the encoder"):
            encoder = FeatureEncoder.fit(dataset)
        findings = () if checked else warn(config, tables, dataset)
        release_free_memory()  # of the tables and their checks
        if replaced := replaced_data(dataset, root):
            note(f"warning: {replaced}")
        note(sizes(dataset, encoder, config.model))
        if ranks.count > 1:
            dataset = on_disk(dataset)
        with bar("train") as move:
            trained = train(
                config, dataset, encoder, reporter(move), checkpoint, resume, restart=restart, worths=True, ranks=ranks
            )
        note(trained.note)
        if ranks.count > 1:
            note(f"{ranks.count} ranks summed {ranks.summed / 1e6:,.1f} MB")
        metrics: dict[str, JsonValue] = {} if raced is None else {"race": raced}
        metrics |= {"fields": [one.worth() for one in trained.fields]} if trained.fields else {}
        exported, gate = _publish(trained, dataset, config, root, activation, metrics)
        ranks.told("published")
    return Run(dataset, trained, exported, config, findings, raced, gate)


def assist(config: RunConfig, ranks: Ranks) -> None:
    """Train as one of the ranks besides rank 0, until that has published.

    Args:
        config: of the run.
        ranks: of which this is not rank 0, which reads the tables.

    Raises:
        RecallError: The run failed.
        TrainingInterruptedError: SIGINT or SIGTERM stopped it.
    """
    _refuse_race(config, ranks)
    with checkpointed(), quiet():
        dataset, encoder = receive(config, ranks)
        train(config, dataset, encoder, lambda _: None, ranks=ranks)
        ranks.told("published")


def _refuse_race(config: RunConfig, ranks: Ranks) -> None:
    if ranks.count > 1 and isinstance(config.train, AutoConfig):
        raise ConfigError(
            'train.objective = "auto" races recipes in one process',
            where="train.objective",
            hint='Train once without ranks, and set train.objective and the rest of the recipe that it prints, or "square"',
        )


def _publish(
    trained: TrainResult,
    dataset: Dataset,
    config: RunConfig,
    root: Path,
    activation: Activation,
    metrics: dict[str, JsonValue],
    parent: int | None = None,
    expected: int | None = None,
) -> tuple[ExportReport, GateReport | None]:
    with stage("export, verify, index, publish"):
        figures: dict[str, JsonValue] = {"curve": trained.curve}
        figures |= {"validation": dict(trained.metrics)} if trained.metrics else {}
        before, live = live_name(root), activates_at_once(activation, root)
        exported = export(
            trained.model,
            trained.encoder,
            dataset,
            config,
            root,
            figures | metrics,
            parent,
            expected,
            trained.popularity,
            activate=live,
        )
    if activation == "always":
        return exported, None
    try:
        with stage("compare with the live version"):
            return exported, settle(activation, exported.folder, root, before, dataset, config)
    except KeyboardInterrupt:
        name = exported.folder.name
        raise TrainingInterruptedError(
            f"interrupted; {name} was published, but not compared with the live version",
            where=str(root),
            hint=f"recall activate {root} {name} makes it live; the same command with --continue compares one again",
        ) from None


def warn(config: RunConfig, tables: Tables, dataset: Dataset) -> tuple[Finding, ...]:
    """Print errors and warnings of `recall data check`, one line each.

    Args:
        config: of the run.
        tables: as they were opened.
        dataset: read from them.

    Returns:
        What was printed.
    """
    with stage("check the tables"):
        findings = tuple(finding for finding in check_loaded(config, tables, dataset) if finding.level != "note")
    note(*(finding.line for finding in findings))
    return findings


def replaced_data(dataset: Dataset, root: Path) -> str:
    """Warn that a root serves a version trained on other data.

    Args:
        dataset: the data of this run.
        root: where it will be published.

    Returns:
        A message; empty when the data match, or the live version cannot be read.
    """
    if not live_name(root):
        return ""
    try:
        bundle = load_bundle(root, verify=False, index=False)
        with closing(SqliteUsers(bundle.users_file)) as store:
            match = match_data(dataset, bundle, len(store), store.get)
    except BundleError:  # publishing replaces the damaged version
        return ""
    if not match.foreign:
        return ""
    return f"{root} serves {bundle.manifest.version}, which comes from other data ({match}); this run will take its place"


def reporter(move: Callable[[int, int, str], None]) -> Callable[[SweepReport], None]:
    """Return a callback that shows each epoch with the function of `bar`."""
    return lambda report: move(report.sweep, report.sweeps, line(report))


def line(report: SweepReport) -> str:
    """Return the progress of one sweep as a line.

    Figures have their standard errors, and a star marks the best so far.
    """
    shown = {name: value for name, value in report.metrics.items() if name.startswith(("ndcg", "recall", "unknown_ndcg"))}
    errors = {name: report.metrics.get(f"error_{name}") for name in shown}
    said = {name: "" if error is None else f" ± {error:.4f}" for name, error in errors.items()}
    metrics = "".join(f"  {name} {value:.4f}{said[name]}" for name, value in shown.items())
    best = " *" if report.best else "  "
    left = f", {report.remaining:.0f} s left" if report.sweep < report.sweeps else ""
    return f"sweep {report.sweep:>2}/{report.sweeps}  loss {report.loss:.4f}{metrics}{best} {report.seconds:6.1f} s{left}"


def sorts(dataset: Dataset) -> str:
    """Describe how many items were trained on, were on offer, or have no interactions."""
    return ", ".join(f"{count:,} {name}" for name, count in dataset.offer.counts().items())


def sizes(dataset: Dataset, encoder: FeatureEncoder, model: ModelConfig) -> str:
    """Describe the size of the data and of the model on one line.

    Args:
        dataset: the interactions, users and items.
        encoder: fitted on them.
        model: kind and rank.
    """
    dim = model.dim(len(encoder.user_fields), len(encoder.item_fields))
    shown = "" if dataset.negatives is None else f"{len(dataset.negatives):,} shown and not taken; "
    interactions = int((dataset.events["split"] != REMEMBERED).sum())
    return (
        f"{interactions:,} interactions: {parts_line(dataset)}; {shown}"
        f"{len(dataset.users):,} users, {len(dataset.items):,} items ({sorts(dataset)}); "
        f"{encoder.n_user_features:,} user and {encoder.n_item_features:,} item features; "
        f"{model.kind} with vectors of {dim:,} numbers, {4e-6 * dim * len(dataset.items):,.1f} MB for all items"
    )


def grow(
    config: RunConfig,
    source: Path,
    new: Path,
    old: Path | None,
    root: Path,
    resume: bool | None = False,
    compare: bool = False,
    old_weight: float = 1.0,
    *,
    restart: bool = False,
    activation: Activation = "always",
    only_new: bool = False,
) -> Run:
    """Continue from a bundle with new tables and publish, with progress on stderr.

    Args:
        config: of the same fields and model as the bundle.
        source: the bundle.
        new: folder of the new tables.
        old: folder of the tables that the bundle was trained on, where available.
        root: where to publish.
        resume: continue from the checkpoint of the same run, which was interrupted; None does so where there is one.
        compare: also train from scratch on the same data, and report the difference.
        old_weight: without `old`, the weight of an old observation relative to a new one.
        restart: overwrite that checkpoint. Where one exists, `resume` or `restart` must be set.
        activation: whether the new version goes live.
        only_new: end where the bundle was trained on all of these tables.

    Raises:
        NothingNewError: It was, with `only_new`.
        RecallError: The run failed; what was live in `root` stays live.
        TrainingInterruptedError: SIGINT or SIGTERM stopped it; says how to continue.
    """
    require_writable(root)
    with checkpointed() as kept:
        config = of_bundle(config, source)
        require_server(config.index.kind)
        with stage("open the bundle, load the tables"):
            ground = prepare_warm_start(config, source, new, old, root, old_weight)
        again = old is None and are_remembered(ground.dataset)
        if only_new and (again or ground.source.data_hash == ground.dataset.fingerprint()):
            raise NothingNewError(f"{ground.source.version} was trained on all of these tables")
        if activation == "if-not-worse":
            types = ground.encoder.types
            require_comparable(
                root,
                ground.dataset,
                config,
                lambda changed: dataset_of(changed, ground.tables, types=types),
                all_new=old is None,
            )
        checkpoint, resume = kept.claim(root, run_fingerprint(config, ground.dataset, ground.start), resume, restart)
        if ground.overlap:
            note(f"warning: {ground.overlap}")
        findings = warn(config, ground.tables, ground.dataset)
        if compare:
            ground.require_validation()
        note(sizes(ground.dataset, ground.encoder, config.model))
        note(new_values(ground))
        with bar("train") as move:
            trained = train(
                config, ground.dataset, ground.encoder, reporter(move), checkpoint, resume, ground.start, restart=restart
            )
        retrained = _retrained(config, ground, trained) if compare else None
        metrics: dict[str, JsonValue] = {"growth": ground.record(trained, retrained)}
        parent, expected = ground.source.sequence, ground.expected
        exported, gate = _publish(trained, ground.dataset, config, root, activation, metrics, parent, expected)
    return Run(ground.dataset, trained, exported, config, findings, gate=gate)


def new_values(ground: WarmStartRun) -> str:
    """Describe how many new values each field has, on one line."""
    named = ", ".join(f"{count:,} of {name}" for name, count in ground.values.items() if count)
    return f"new values: {named or 'none'}"


def _retrained(config: RunConfig, ground: WarmStartRun, trained: TrainResult) -> Retrained:
    note("from scratch, to compare:")
    with bar("train from scratch") as move:
        return retrain(config, ground, trained, reporter(move))
