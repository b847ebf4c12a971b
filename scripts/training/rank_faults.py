"""Faults of training on ranks, each with new processes.

python scripts/scale_out.py ranks-faults --check
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

Check = Callable[[str, bool, str], None]
Fault = Callable[[Path], tuple[bool, str]]
LONG = ("--set", "train.sweeps=100000", "--set", "train.stopping.patience=100000")
"""Settings of a run that continues until it is stopped."""
_RECALL = "from recall.cli import main; main()"
_DRIFTS = """
from recall.training.als.solver import ImplicitALS
sweep = ImplicitALS.sweep
def drifting(self):
    loss = sweep(self)
    if self._ranks.rank == 1 and self._sweep == 2:
        self.model.item_weights.data[0] += 1e-3
    return loss
ImplicitALS.sweep = drifting
"""
_UNPUBLISHED = """
from recall import pipeline
from recall.errors import PublishError
def refused(*_):
    raise PublishError("the version was refused")
pipeline._publish = refused
"""
_FULL = """
from safetensors import SafetensorError
from recall.training import checkpoint
save, calls = checkpoint.save_file, []
def full(*given):
    calls.append(1)
    if len(calls) == 2:
        raise SafetensorError("No space left on device (os error 28)")
    save(*given)
checkpoint.save_file = full
"""
_BASE = ("--set", "train.objective=square", "--set", "train.sweeps=3")


def shop(folder: Path, users: int = 200, items: int = 100, interactions: int = 5_000) -> Path:
    """Write generated tables; return their configuration."""
    from recall.data.synthetic import SyntheticConfig, generate

    folder.mkdir(parents=True, exist_ok=True)
    considered = 2_000 if interactions < 100_000 else 16  # utilities of each choice, which take the time
    generate(SyntheticConfig(users, items, interactions, considered)).write(folder)
    source = Path(__file__).parents[2] / "recall" / "data" / "shop.toml"
    (folder / "recall.toml").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    return folder / "recall.toml"


def started(config: Path, out: Path, *given: str, ranks: int = 2) -> "subprocess.Popen[str]":
    """Start `recall train --ranks`, with its output in `out.log`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "recall", "train", str(config), "--out", str(out), "--ranks", str(ranks), *_BASE, *given]
    with out.with_suffix(".log").open("w") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def one_by_one(folder: Path, arguments: Sequence[Sequence[str]], preludes: Sequence[str]) -> tuple[list[int], list[str]]:
    """Run ranks without a launcher; return exit codes and outputs.

    Args:
        folder: for their outputs.
        arguments: of each rank.
        preludes: Python code that each rank runs first.
    """
    port = free_port()
    running = []
    for rank, (given, prelude) in enumerate(zip(arguments, preludes, strict=True)):
        env = {"RANK": str(rank), "WORLD_SIZE": str(len(arguments)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        with (folder / f"rank-{rank}.log").open("w") as log:
            command = [sys.executable, "-c", prelude + _RECALL, "train", *given, "--rank-timeout", "30"]
            running.append(subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1", **env}))
    codes = [process.wait(120) for process in running]
    return codes, [(folder / f"rank-{rank}.log").read_text() for rank in range(len(running))]


def free_port() -> int:
    """Return a port of the loopback that is free now."""
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def after_sweep(process: "subprocess.Popen[str]", log: Path, sweep: int) -> list[int]:
    """Wait for the report of a sweep; return the processes of the ranks, by rank."""
    until = time.monotonic() + 120
    while not re.search(rf"sweep +{sweep}/", log.read_text()):
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"it ended before sweep {sweep}: {log.read_text()}")
        time.sleep(0.02)
    ranks = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == process.pid:
                variables = dict(part.split(b"=", 1) for part in (entry / "environ").read_bytes().split(b"\0") if b"=" in part)
                if b"RANK" in variables:
                    ranks[int(variables[b"RANK"])] = int(entry.name)
    return [pid for _, pid in sorted(ranks.items())]


def killed(folder: Path) -> tuple[bool, str]:
    """Kill rank 1, then continue on one rank more."""
    config, out = shop(folder / "shop"), folder / "killed"
    process = started(config, out, *LONG)
    pids = after_sweep(process, out.with_suffix(".log"), 3)
    began = time.monotonic()
    os.kill(pids[1], signal.SIGKILL)
    code, seconds = process.wait(60), time.monotonic() - began
    said = out.with_suffix(".log").read_text().splitlines()[-4:]
    last = " ".join(said)
    kept = re.search(r"after sweep (\d+)", said[-2])
    met = code == 1 and seconds < 30 and "rank 1 by SIGKILL" in last and kept is not None and "--continue" in last
    figures = f"exit code {code} after {seconds:.1f} s: {last[-160:]}"
    if kept is None:
        return False, figures
    again = started(config, out, *LONG, "--continue", ranks=3)
    following = int(kept[1]) + 1
    after_sweep(again, out.with_suffix(".log"), following)
    again.send_signal(signal.SIGTERM)
    again.wait(60)
    first = re.search(r"sweep +(\d+)/", out.with_suffix(".log").read_text())
    return met and first is not None and int(first[1]) == following, f"{figures}; continued on 3 ranks with sweep {following}"


def hung(folder: Path) -> tuple[bool, str]:
    """Stop rank 1, so that it does not answer."""
    config, out = shop(folder / "shop"), folder / "hung"
    process = started(config, out, *LONG, "--rank-timeout", "3")
    pids = after_sweep(process, out.with_suffix(".log"), 2)
    began = time.monotonic()
    os.kill(pids[1], signal.SIGSTOP)
    while "did not answer" not in out.with_suffix(".log").read_text() and time.monotonic() - began < 60:
        time.sleep(0.05)
    seconds = time.monotonic() - began

    code, text = process.wait(90), out.with_suffix(".log").read_text()
    met = code == 1 and seconds < 15 and "rank 1 did not answer within 3 s" in text and "--continue" in text
    return met, f"said after {seconds:.1f} s, exit code {code} after {time.monotonic() - began:.0f} s"


def not_finite(folder: Path) -> tuple[bool, str]:
    """Train with a learning rate that overflows."""
    config, out = shop(folder / "shop"), folder / "infinite"
    given = ("train.objective=bpr", "train.optimiser=sgd", "train.learning_rate=1e30")
    command = [sys.executable, "-m", "recall", "train", str(config), "--out", str(out), "--ranks", "2"]
    config.write_text(config.read_text().partition("[train]")[0] + "[train]\nobjective = 'bpr'\nepochs = 2\n")
    ended = subprocess.run(
        [*command, *(part for one in given[1:] for part in ("--set", one))], capture_output=True, text=True, check=False
    )
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error:")]
    met = ended.returncode == 1 and len(errors) == 1 and "not finite in field" in errors[0] and "sweep 1" in ended.stderr
    return met, f"exit code {ended.returncode}: {errors}"


def terminated(folder: Path) -> tuple[bool, str]:
    """Send SIGTERM to the launcher."""
    config, out = shop(folder / "shop"), folder / "terminated"
    process = started(config, out, *LONG)
    after_sweep(process, out.with_suffix(".log"), 2)
    process.send_signal(signal.SIGTERM)
    code, text = process.wait(60), out.with_suffix(".log").read_text()
    said = [line for line in text.splitlines() if line.startswith(("stopped:", "error:"))]
    met = code == 143 and any(re.search(r"after sweep \d+, which is kept", line) for line in said)
    return met, f"exit code {code}: {said}"


def other_settings(folder: Path) -> tuple[bool, str]:
    """Give rank 1 other settings."""
    given = [str(shop(folder / "shop")), "--out", str(folder / "out"), *_BASE]
    codes, texts = one_by_one(folder, [given, [*given, "--set", "model.k=8"]], ["", ""])
    return codes == [1, 1] and "rank 1 has another configuration than rank 0" in "".join(texts), f"exit codes {codes}"


def drifted(folder: Path) -> tuple[bool, str]:
    """Change a table of rank 1 in sweep 2."""
    config = shop(folder / "shop")
    given = [str(config), "--out", str(folder / "out"), *_BASE]
    codes, texts = one_by_one(folder, [given, given], [_DRIFTS, _DRIFTS])
    met = (
        codes == [1, 1] and "the tables of rank 1 differ from those of rank 0" in "".join(texts) and "sweep 2" in "".join(texts)
    )
    return met, f"exit codes {codes}"


def disk_full(folder: Path) -> tuple[bool, str]:
    """Refuse the checkpoint of sweep 2."""
    config = shop(folder / "shop")
    given = [str(config), "--out", str(folder / "out"), *_BASE]
    codes, texts = one_by_one(folder, [given, given], [_FULL, ""])
    met = codes == [0, 0] and texts[0].count("Training continues; the previous checkpoint is kept") == 1
    return met, f"exit codes {codes}, published {len(list((folder / 'out' / 'versions').iterdir()))}"


def unpublished(folder: Path) -> tuple[bool, str]:
    """Refuse the version of rank 0."""
    config = shop(folder / "shop")
    given = [str(config), "--out", str(folder / "out"), *_BASE]
    codes, texts = one_by_one(folder, [given, given], [_UNPUBLISHED, ""])
    met = codes[0] == 73 and codes[1] != 0 and "the version was refused" in texts[0] and not texts[1]
    return met, f"exit codes {codes}"


FAULTS: dict[str, Fault] = {
    "a killed rank ends all, and is named": killed,
    "a rank that hangs is named": hung,
    "a number that is not finite is one error": not_finite,
    "SIGTERM ends all, and the last sweep is said": terminated,
    "other settings are refused": other_settings,
    "different tables are refused": drifted,
    "a full disk keeps the last checkpoint": disk_full,
    "rank 0 publishes, and its failure ends all": unpublished,
}


def ranks_faults(folder: Path, quick: bool, check: Check) -> None:  # noqa: ARG001 - there is nothing to take less of
    """Check that all ranks end after each fault, and say why."""
    for number, (name, fault) in enumerate(FAULTS.items()):
        (folder / str(number)).mkdir()
        met, figures = fault(folder / str(number))
        check(name, met, figures)
