"""Ranks as processes, which torchrun or `recall train --ranks` starts.

All ranks end when one fails. A rank that reports an error records so in the store through which torch.distributed connects the
ranks, and the others end silently. A rank that was killed, or hangs, records nothing, and the others name it.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed
from torch.distributed.rendezvous import rendezvous
from typing_extensions import override

from recall.errors import TrainingError, TrainingInterruptedError
from recall.training.checkpoint import kept_sweep
from recall.training.ranks import ALONE, RankEndedError, RankLostError, Ranks

WAITING = 120.0
"""Seconds that a rank waits for another in a sum; gloo's own limit is half an hour."""
_ALONE = timedelta(hours=24)  # that rank 0 may take for validation, a checkpoint, or publishing
_REPORT = 1.0  # seconds for the report of another rank, which a launcher ends as soon as one rank has ended
_OTHERS = 3.0  # seconds in which the others report that they lost a rank, too

# The ranks of a machine share its memory. glibc would keep freed arrays of up to 32 MB: 53 MB of a rank with 5 million
# interactions, and sweeps take no more CPU time without.
_FREED = {"MALLOC_MMAP_THRESHOLD_": 1 << 20, "MALLOC_TRIM_THRESHOLD_": 4 << 20}


class ProcessRanks(Ranks):
    """One of several processes that are connected by gloo."""

    def __init__(self, store: Any, rank: int, count: int, waiting: float) -> None:
        """Connect to the others.

        Args:
            store: a `torch.distributed.Store` that the processes share.
            rank: number of this one.
            count: how many there are.
            waiting: seconds in which each sum must be complete.
        """
        self._store, self.rank, self.count = store, rank, count
        self._waiting = waiting
        limit = timedelta(seconds=waiting)
        distributed.init_process_group("gloo", timeout=limit, world_size=count, rank=rank, store=store)
        self._patient = distributed.new_group(timeout=_ALONE)

    @override
    def add_up(self, *sums: npt.NDArray[Any]) -> None:
        for array in sums:
            if array.size:
                whole = np.ascontiguousarray(array)
                self._call(partial(distributed.all_reduce, torch.from_numpy(whole)))
                if whole is not array:
                    array[...] = whole.reshape(array.shape)
                self.summed += whole.nbytes

    @override
    def wait(self) -> None:
        self._call(lambda: distributed.all_reduce(torch.zeros(1), group=self._patient))

    @override
    def copied(self, data: bytes) -> bytes:
        return self._from_first(data, None)

    @override
    def told(self, text: str) -> str:
        return self._from_first(text.encode(), self._patient).decode()

    def _from_first(self, data: bytes, group: "distributed.ProcessGroup | None") -> bytes:
        size = torch.tensor([len(data)])
        self._call(lambda: distributed.broadcast(size, 0, group=group))
        sent = torch.empty(int(size), dtype=torch.uint8)
        if self.rank == 0:
            sent.numpy()[:] = np.frombuffer(data, dtype=np.uint8)
        if len(sent):
            self._call(lambda: distributed.broadcast(sent, 0, group=group))
        return sent.numpy().tobytes() if self.rank else data

    def say(self, error: BaseException) -> bool:
        """Return whether this rank is to report an error; record it for the others.

        Args:
            error: that ends this rank.
        """
        if isinstance(error, RankEndedError):
            return False
        stopped = isinstance(error, TrainingInterruptedError | KeyboardInterrupt)
        with suppress(RuntimeError):  # the process with the store may be gone
            first = self._store.add(f"said/{crc32(str(error).encode())}", 1) == 1
            self._store.set(f"failed/{self.rank}", "stopped" if stopped and self.rank else "said")
            return first and not (stopped and self.rank)
        return True

    def _call(self, operation: Callable[[], object]) -> None:
        try:
            operation()
        except RuntimeError as error:
            raise self._lost("imed out" in str(error)) from None

    def _lost(self, late: bool) -> TrainingError:
        """Return the error of losing other ranks.

        Args:
            late: whether they did not answer in time; otherwise their connection was closed.
        """
        others = [rank for rank in range(self.count) if rank != self.rank]
        found: dict[int, str] = {}
        until = time.monotonic() + _OTHERS
        with suppress(RuntimeError):
            self._store.set(f"failed/{self.rank}", "lost")
            while len(found) < len(others) and time.monotonic() < until:
                for rank in others:
                    if rank not in found and self._store.check([f"failed/{rank}"]):
                        found[rank] = self._store.get(f"failed/{rank}").decode()
                if "said" in found.values():
                    return RankEndedError("another rank reported an error")
                time.sleep(0.05)
        stopped = [rank for rank, how in found.items() if how == "stopped"]
        gone = stopped or [rank for rank in others if rank not in found] or others
        named = f"rank{'s' * (len(gone) > 1)} {', '.join(map(str, gone))}"
        if stopped:
            return RankLostError(f"{named} was stopped by a signal")
        return RankLostError(
            f"{named} did not answer within {self._waiting:g} s" if late else f"{named} ended without an error"
        )


@contextmanager
def connected(waiting: float = WAITING) -> Iterator[Ranks]:
    """Connect to the other ranks, if this process was started as one of several.

    Args:
        waiting: seconds in which each sum must be complete.

    Raises:
        TrainingError: Another rank did not start.
        SystemExit: Another rank reports the error.
    """
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    limit = timedelta(seconds=waiting)
    try:
        store, rank, count = next(iter(rendezvous("env://", timeout=limit)))
        store.set_timeout(limit)
        ranks = ProcessRanks(store, rank, count, waiting)
    except (RuntimeError, ValueError) as error:
        hint = "Start all ranks by torchrun, on machines that reach each other"
        raise TrainingError("the ranks could not be connected", why=str(error).splitlines()[0], hint=hint) from None
    try:
        yield ranks
        distributed.destroy_process_group()
    except BaseException as error:
        if ranks.say(error):
            raise
        time.sleep(_REPORT)
        raise SystemExit(getattr(error, "exit_code", 1)) from None


def launch(count: int, arguments: Sequence[str], root: Path) -> None:
    """Start ranks on this machine, and wait for them.

    Args:
        count: of ranks.
        arguments: of each `python -m recall`.
        root: folder to publish to, where the checkpoint is.

    Raises:
        RankLostError: A rank was killed.
        SystemExit: The ranks reported an error, or a signal stopped them.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    for name, size in _FREED.items():
        os.environ.setdefault(name, str(size))
    config = LaunchConfig(
        1,
        1,
        count,
        run_id=str(os.getpid()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
    )
    began = time.time()
    logging.disable()  # the launcher's log does not explain how to continue
    try:
        elastic_launch(config, sys.executable)("-m", "recall", *arguments)
    except SignalException as stop:
        raise SystemExit(128 + stop.sigval) from None
    except ChildFailedError as failed:
        codes = {rank: one.exitcode for rank, one in failed.failures.items() if one.exitcode != -signal.SIGTERM}  # its own
        killed = {rank: signal.Signals(-code).name for rank, code in codes.items() if code < 0}
        if not killed:
            raise SystemExit(max(codes.values(), default=1)) from None
        kept = [kept_sweep(path) for path in root.glob("checkpoint-*.safetensors") if path.stat().st_mtime >= began]
        named = " and ".join(f"rank {rank} by {name}" for rank, name in killed.items())
        raise RankLostError(f"killed: {named}").after(max(kept, default=0)) from None
    finally:
        logging.disable(logging.NOTSET)
