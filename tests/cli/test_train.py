import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recall import pipeline
from recall.bundle.manifest import Manifest
from recall.bundle.reader import load_bundle
from recall.bundle.versions import resolve, versions
from recall.config import load_config
from recall.data.dataset import load_dataset
from recall.data.split import TEST
from recall.data.synthetic import SyntheticConfig, generate
from recall.errors import TrainingInterruptedError
from recall.serving.recommender import Recommender, Request
from recall.training.checkpoint import checkpoint_path
from recall.training.train import run_fingerprint

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small shop and its configuration."""
    folder = tmp_path_factory.mktemp("shop")
    generate(SyntheticConfig(users=80, items=60, interactions=1_500)).write(folder)
    return folder


@pytest.fixture(scope="module")
def bundles(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root with the published model of the shop."""
    root = tmp_path_factory.mktemp("bundles")
    command = [sys.executable, "-c", "from recall.cli import main; main()", "train", str(shop / "recall.toml")]
    subprocess.run([*command, "--out", str(root), "--set", "train.sweeps=2"], cwd=ROOT, check=True, capture_output=True)
    return root


def test_training_publishes_a_bundle_that_answers(run, shop: Path, tmp_path: Path) -> None:
    ended = run("train", shop / "recall.toml", "--out", tmp_path, "--set", "train.sweeps=2", "--set", "model.k=4", "--json")
    assert ended.code == 0
    result = ended.json
    assert Path(result["folder"]) == resolve(tmp_path)
    assert result["sweeps"] == 2
    assert result["parity"]["largest_error"] < 1e-5
    assert 0 <= result["metrics"]["ndcg@10"] <= 1
    assert not checkpoints(tmp_path)
    lines = ended.err.splitlines()
    assert [line.split()[:2] for line in lines if line.startswith("sweep")] == [["sweep", "1/2"], ["sweep", "2/2"]]
    assert all("ndcg@10" in line and line.partition("loss")[2] for line in lines if line.startswith("sweep"))
    assert "fm with vectors of 5 numbers, 0.0 MB for all items" in ended.err
    recommender = Recommender.load(tmp_path)
    assert len(recommender.recommend(Request(user_id="u0001", n=5)).items) == 5
    recommender.close()


def test_the_list_of_a_query_begins_with_titles(run, bundles: Path) -> None:
    lines = run("query", bundles, "-n", 2).out.splitlines()
    assert lines[0].split() == ["rank", "item", "score", "title", "category", "brand", "tags"]
    assert len(lines) == 3


@pytest.mark.parametrize("kind", ["milvus", "pgvector_hnsw"])
def test_a_server_without_an_address_ends_the_run_before_tables_are_read(
    run, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    variable = f"RECALL_{kind.partition('_')[0].upper()}_URL"
    monkeypatch.delenv(variable, raising=False)
    ended = run("train", shop / "recall.toml", "--out", tmp_path, "--set", f"index.kind={kind}")
    assert ended.code == 78
    assert variable in ended.err
    assert "load the tables" not in ended.err


def test_a_root_that_cannot_be_written_ends_the_run_before_tables_are_read(run, shop: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = run("train", shop / "recall.toml", "--data", tmp_path / "no tables", "--out", tmp_path / "file" / "bundles")
    assert ended.code == 73
    assert ended.err.splitlines() == [
        "error: the folder cannot be written",
        f"where: {tmp_path / 'file' / 'bundles'}",
        f"why:   {tmp_path / 'file'} is a file",
        "hint:  Name another folder",
    ]
    ended = run("train", shop / "recall.toml", "--data", tmp_path / "no tables", "--out", "/proc/bundles")
    assert (ended.code, ended.err.splitlines()[2]) == (73, "why:   /proc: No such file or directory")


def test_training_prints_warnings_of_the_check_first(run, tmp_path: Path) -> None:
    rows = "".join(f"u{n % 30},i{n % 7},Title  {n % 7},{n % 2}\n" for n in range(300))
    (tmp_path / "e.csv").write_text("user_id,item_id,title,clicked\n" + rows)
    fields = "".join(f'{name} = {{ side = "user", kind = "categorical" }}\n' for name in ("user_id", "title", "clicked"))
    (tmp_path / "run.toml").write_text(
        f'[data]\ninteractions = "e.csv"\n[fields]\n{fields}item_id = {{ side = "item", kind = "categorical" }}\n'
    )
    ended = run("train", tmp_path / "run.toml", "--out", tmp_path / "out", "--set", "train.sweeps=1", "--set", "model.k=2")
    assert ended.code == 0
    lines = ended.err.splitlines()
    warned = [line for line in lines if line.startswith("warning: ")]
    assert [line.split()[1] for line in warned] == ["interactions.title:", "interactions.clicked:"]
    assert lines.index(warned[-1]) < next(number for number, line in enumerate(lines) if line.startswith("sweep"))
    checked = run("data", "check", tmp_path / "run.toml").out.splitlines()
    assert [line.split(None, 1)[1] for line in checked if line.startswith("warning")] == [
        line.removeprefix("warning: ") for line in warned
    ]


def test_the_loss_of_dropped_singular_values_is_reported(run, shop: Path, tmp_path: Path) -> None:
    model = "model={kind='fwfm', k=4, rank=1}"
    train = "train={objective='softmax', epochs=1}"
    ended = run("train", shop / "recall.toml", "--out", tmp_path, "--set", model, "--set", train)
    assert ended.code == 0
    assert "fwfm with vectors of 5 numbers" in ended.err
    fold = Manifest.read(resolve(tmp_path)).model.fold
    assert f"rank 1: error {fold.lost:.1e} of the field weights" in ended.out
    assert "zero weights" not in ended.out  # only FTRL makes them


def test_an_interrupted_comparison_says_that_a_version_was_published(
    shop: Path, bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "settle", interrupt)
    root = shutil.copytree(bundles, tmp_path / "bundles")
    live = resolve(root)
    config = load_config(shop / "recall.toml", ["train.sweeps=1"])
    with pytest.raises(TrainingInterruptedError, match="was published") as error:
        pipeline.run(config, shop, root, activation="if-not-worse")
    (published,) = set(versions(root)) - {live}
    assert published.name in error.value.what
    assert error.value.exit_code == 130
    assert resolve(root) == live


def checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*.safetensors"))


STUCK = "import concurrent.futures, threading; concurrent.futures.ThreadPoolExecutor(1).submit(threading.Event().wait);"


def stopped(arguments: list[str], folder: Path, number: signal.Signals, before: str = "") -> tuple[int, str]:
    """Send a signal to a training run after its first checkpoint; return its exit code and stderr."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"{before} from recall.cli import main; main()".strip(), *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not checkpoints(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert out == ""
    return process.returncode, err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)])
def test_an_interrupted_run_can_be_continued(run, shop: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    arguments = ["train", str(shop / "recall.toml"), "--out", str(tmp_path), "--set", "train.sweeps=40"]
    arguments += ["--set", "train.stopping.patience=500"]
    found, err = stopped(arguments, tmp_path, number, STUCK)
    assert found == code, err  # though a thread of a pool never ends
    assert "stopped: training was interrupted after sweep" in err
    assert "Add --continue to the same command" in err
    assert "Traceback" not in err
    (checkpoint,) = checkpoints(tmp_path)
    kept = checkpoint.read_bytes()
    other = run(*arguments, "--set", "model.k=3", "--continue")
    assert other.code == 1
    assert "there is no checkpoint of this run to continue from" in other.err
    assert f"{checkpoint.name} belong to other configurations or data" in other.err
    again = run(*arguments)
    assert again.code == 73
    assert "a checkpoint of the same run after sweep" in again.err
    assert "Add --continue to continue from it, or --restart" in again.err
    finished = run(*arguments, "--set", "model.k=3", "--set", "train.sweeps=1")
    assert finished.code == 0
    assert f"checkpoints of other runs are left alone in {tmp_path}: {checkpoint.name}" in finished.err
    assert checkpoint.read_bytes() == kept
    resumed = run(*arguments, "--continue")
    assert resumed.code == 0
    assert "sweep  1/" not in resumed.err
    assert [path.name for path in tmp_path.iterdir() if "checkpoint" in path.name] == []


def test_restarting_over_a_checkpoint_must_be_requested(run, shop: Path, tmp_path: Path) -> None:
    arguments = ["train", str(shop / "recall.toml"), "--out", str(tmp_path), "--set", "train.sweeps=1", "--set", "model.k=2"]
    config = load_config(shop / "recall.toml", ["train.sweeps=1", "model.k=2"])
    checkpoint = checkpoint_path(tmp_path, run_fingerprint(config, load_dataset(config, shop)))
    checkpoint.write_bytes(b"damaged")
    refused = run(*arguments)
    assert (refused.code, checkpoint.read_bytes()) == (73, b"damaged")
    assert "the checkpoint is damaged, and would be overwritten" in refused.err
    assert run(*arguments, "--continue", "--restart").code == 2
    assert run(*arguments, "--restart").code == 0
    assert not checkpoint.exists()


@pytest.fixture(scope="module")
def today(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with new interactions: a new customer bought the same items as the first one."""
    folder = tmp_path_factory.mktemp("today")
    interactions = pl.read_parquet(shop / "interactions.parquet")
    first = interactions.filter(pl.col("user_id") == interactions["user_id"][0])
    first.with_columns(pl.lit("newcomer").alias("user_id")).write_parquet(folder / "interactions.parquet")
    return folder


def test_a_bundle_continues_with_new_data(run, shop: Path, bundles: Path, today: Path, tmp_path: Path) -> None:
    arguments = ["train", shop / "recall.toml", "--resume", bundles, "--new", today, "--data", shop, "--out", tmp_path]
    ended = run(*arguments, "--set", "train.sweeps=2", "--compare-full", "--json")
    assert ended.code == 0
    growth = ended.json["growth"]
    assert growth["new values"] == {"user_id": 1}
    assert growth["learnt from"] == "old and new interactions"
    assert growth["gap"]["ndcg@10"]["value"] == pytest.approx(growth["full"]["ndcg@10"] - growth["after"]["ndcg@10"])
    assert growth["seconds"] > 0
    assert growth["full"]["seconds"] > 0
    assert "new values: 1 of user_id" in ended.err
    recommender = Recommender.load(tmp_path)
    assert recommender.recommend(Request(user_id="newcomer")).user == "known"
    assert recommender.bundle.manifest.parent == 1
    recommender.close()


def test_without_the_old_tables_only_the_new_ones_are_used(run, shop: Path, bundles: Path, today: Path, tmp_path: Path) -> None:
    ended = run("train", shop / "recall.toml", "--resume", bundles, "--new", today, "--out", tmp_path)
    assert ended.code == 0
    assert "new interactions alone" in ended.out
    assert "before" in ended.out
    assert "from scratch" not in ended.out


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--resume", "BUNDLES"], 2, "--resume BUNDLE and --new DATA must be given together"),
        (["--compare-full"], 2, "--compare-full requires"),
        (["--resume", "BUNDLES", "--new", "TODAY", "--set", "model.k=5"], 78, "--set model.k=32"),
        (
            ["--resume", "BUNDLES", "--new", "TODAY", "--set", "data.split.valid=0", "--compare-full"],
            78,
            "needs a validation part",
        ),
    ],
)
def test_invalid_continuations_are_refused(
    run, options, code, said, shop: Path, bundles: Path, today: Path, tmp_path: Path
) -> None:
    places = {"BUNDLES": str(bundles), "TODAY": str(today)}
    ended = run("train", shop / "recall.toml", "--out", tmp_path, *(places.get(option, option) for option in options))
    assert ended.code == code
    assert said in " ".join(ended.err.replace("\n", " ").replace("│", " ").split())


def test_evaluate_measures_the_published_bundle(run, shop: Path, bundles: Path, tmp_path: Path) -> None:
    report = tmp_path / "reports" / "shop.json"
    ended = run("evaluate", shop / "recall.toml", bundles, "--set", "evaluation.intervals=50", "--out", report, "--json")
    assert ended.code == 0
    assert ended.json["bundle"] == resolve(bundles).name
    assert ended.json["found"]["value"] == 1.0
    assert report.exists()
    shown = run("evaluate", shop / "recall.toml", bundles, "--part", "valid", "--set", "evaluation.intervals=0")
    assert "valid part" in shown.out
    assert "recall@10" in shown.out


def test_evaluate_compares_bundles_and_ablates_fields(run, shop: Path, bundles: Path) -> None:
    few = ("--set", "evaluation.intervals=20", "--set", "evaluation.at=[10]", "--set", "evaluation.dial=[]")
    ended = run("evaluate", shop / "recall.toml", bundles, *few, "--ablate", "--against", bundles)
    assert ended.code == 0
    assert "without each field" in ended.out
    version = resolve(bundles).name
    assert f"bundle {version} against {version}" in ended.out
    assert "popularity dial" not in ended.out
    assert run("evaluate", shop / "recall.toml", bundles, "--against", shop).code == 65


def test_new_interactions_with_only_unknown_items_are_reported(
    run, shop: Path, bundles: Path, today: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for table, folder in (("interactions", shop), ("items", shop)):
        frame = pl.read_parquet(folder / f"{table}.parquet")
        frame.with_columns(item_id="x" + pl.col("item_id")).write_parquet(other / f"{table}.parquet")
    arguments = ("train", shop / "recall.toml", "--resume", bundles, "--out", tmp_path, "--set", "train.sweeps=1", "--new")
    assert "0 of the 60 items of the new interactions are in the bundle's catalogue" in run(*arguments, other).err
    assert "in the bundle's catalogue" not in run(*arguments, today).err


LITTLE = ("--set", "evaluation.intervals=0", "--set", "evaluation.at=[5]", "--set", "evaluation.dial=[]")


@pytest.mark.parametrize("split", ['{by="last",test=5,valid=1}', '{by="random"}', '{by="time",test=0.5}'])
def test_a_bundle_trained_on_rows_held_out_now_is_refused(run, split, shop: Path, bundles: Path) -> None:
    ended = run("evaluate", shop / "recall.toml", bundles, *LITTLE, "--set", f"data.split={split}")
    assert ended.code == 65
    dataset = load_dataset(load_config(shop / "recall.toml", [f"data.split={split}"]), shop)
    trained = load_dataset(load_config(shop / "recall.toml"), shop).training
    learnt, judged = len(np.intersect1d(trained, dataset.select(TEST))), len(dataset.select(TEST))
    assert f"was trained on {learnt:,} of the {judged:,} held-out interactions" in " ".join(ended.err.split())
    other = run("evaluate", shop / "recall.toml", bundles, *LITTLE, "--set", "seed=1")  # the seed does not affect this split
    assert other.code == 0


def test_later_interactions_can_be_evaluated_with_any_split(run, shop: Path, bundles: Path, tmp_path: Path) -> None:
    config = load_config(shop / "recall.toml")
    log = pl.read_parquet(shop / config.data.interactions)
    time_column = config.data.time
    assert time_column is not None
    unknown = log.with_columns(
        pl.col("item_id").reverse(), pl.col(time_column) + (log[time_column].max() - log[time_column].min())
    )
    unknown = unknown.join(log, on=["user_id", "item_id"], how="anti").head(200)
    pl.concat([log, unknown]).write_parquet(tmp_path / config.data.interactions)
    for name in ("users.parquet", "items.parquet"):
        (tmp_path / name).write_bytes((shop / name).read_bytes())
    start = len(log) / (len(log) + len(unknown))
    later = ("--data", tmp_path, "--set", f"data.split={{by='time',test={start}}}")
    assert run("evaluate", shop / "recall.toml", bundles, *LITTLE, *later).code == 0


def test_rebuild_publishes_new_items_without_training(run, shop: Path, bundles: Path, tmp_path: Path) -> None:
    items = pl.read_parquet(shop / "items.parquet")
    new = items.head(1).with_columns(pl.lit("brand-new").alias("item_id"))
    pl.concat([items.tail(-1), new]).write_parquet(tmp_path / "items.parquet")
    ended = run("rebuild", bundles, tmp_path / "items.parquet", "--out", tmp_path / "out", "--json")
    assert ended.code == 0
    assert ended.json["added"] == ["brand-new"]
    assert len(ended.json["removed"]) == 1
    assert "1 added, 1 removed" in run("rebuild", bundles, tmp_path / "items.parquet", "--out", tmp_path / "out").out


def test_zero_weights_are_reported_and_removed(run, tiny_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "tiny.toml"
    file.write_text(
        'name = "tiny"\n[data]\nusers = "users.parquet"\nitems = "items.parquet"\ntime = "time"\n'
        'split = { by = "last", test = 1, valid = 0 }\n'
        '[fields]\nuser_id = { side = "user", kind = "categorical" }\nitem_id = { side = "item", kind = "categorical" }\n'
        'tags = { side = "item", kind = "bag" }\n[model]\nkind = "lr"\n'
        '[train]\nobjective = "logistic"\nepochs = 3\nbatch = 32\nfirst_order = { l1 = 0.5 }\n'
    )
    ended = run("train", file, "--data", tiny_folder, "--out", tmp_path / "out")
    assert ended.code == 0, ended.err
    bundle = load_bundle(tmp_path / "out")
    weights = bundle.tables.arrays()["item_weights"]
    zeros = (weights == 0).mean()
    assert zeros > 0.5
    assert f"{zeros:.1%} of the item features; " in ended.out
    assert bundle.manifest.model.kept["item_weights"] == np.count_nonzero(weights)
