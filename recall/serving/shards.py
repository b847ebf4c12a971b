"""Write lists for many users to a file, in shards on several processes.

Each finished shard is a file beside the output until all are finished, so that an interrupted job can be continued.
"""

import hashlib
import json
import multiprocessing
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from recall._file_system import fsync
from recall.bundle.versions import resolve
from recall.errors import RecallError
from recall.serving.batch import Lists, typed
from recall.serving.recommender import Recommender
from recall.serving.request import Request

USERS_IN_SHARD = 10_000
"""Number of users in a shard. Chosen, not tuned."""


class JobError(RecallError):
    """Lists cannot be written, or the folder has shards of another job."""

    exit_code = 73


@dataclass(frozen=True, slots=True)
class JobResult:
    """Result of a job.

    Attributes:
        users: number of users.
        rows: rows of the output.
        strangers: number of unknown users.
        resumed: number of users whose lists were written by an interrupted job.
        seconds: time for the other users.
        warnings: warnings of the answers, each once.
    """

    users: int
    rows: int
    strangers: int
    resumed: int
    seconds: float
    warnings: tuple[str, ...]

    @property
    def rate(self) -> float:
        """Users a second, without the resumed ones."""
        return (self.users - self.resumed) / max(self.seconds, 1e-9)


@dataclass(frozen=True, slots=True)
class Job:
    """Lists to write.

    Attributes:
        bundle: a root or a version.
        asked: a row for each list, as for `Lists.recommend`; None for all known users.
        template: request for each user.
        out: output file, `.parquet` or `.csv`.
        processes: maximum number of worker processes.
        users_in_shard: users in a shard.
    """

    bundle: Path
    asked: pl.DataFrame | None
    template: Request
    out: Path
    processes: int = 1
    users_in_shard: int = USERS_IN_SHARD

    @property
    def parts(self) -> Path:
        """Folder of finished shards."""
        return self.out.with_name(self.out.name + ".parts")

    def run(self, report: Callable[[int, int, str], None], *, restart: bool = False) -> JobResult:
        """Write the shards, and then the output.

        Args:
            report: called after each shard with the number of users done, the number of all users, and a line of text.
            restart: discard the shards of an interrupted job.

        Raises:
            RequestError: A request cannot be answered.
            JobError: There are shards of another job, or a process died.
        """
        folder = resolve(self.bundle)
        with closing(Recommender.load(folder, root=self.root(folder))) as recommender:
            lists = Lists(recommender)
            asked = lists.everyone().to_frame() if self.asked is None else self.asked
            key = recommender.bundle.encoder.schema.user_id
            asked = asked.with_columns(typed(asked[key], lists.user_type))  # ids from a CSV file are text
            shards = [asked[first : first + self.users_in_shard] for first in range(0, len(asked), self.users_in_shard)]
            self._claim(folder, asked, restart)
            left = [number for number in range(max(1, len(shards))) if not self._part(number).exists()]
            resumed = len(asked) - sum(len(shards[number]) for number in left if number < len(shards))
            started, done = time.monotonic(), resumed
            todo = {number: shards[number] if shards else asked for number in left}
            for number in self._answer(folder, lists, todo):
                done += len(todo[number])
                spent = time.monotonic() - started
                rate = (done - resumed) / max(spent, 1e-9)
                report(done, len(asked), f"{done:,} of {len(asked):,} users, {rate:,.0f} a second")
        seconds = time.monotonic() - started
        notes = [json.loads(self._notes(number).read_text(encoding="utf-8")) for number in range(max(1, len(shards)))]
        rows = self._join(max(1, len(shards)))
        warnings = tuple(dict.fromkeys(one for part in notes for one in part["warnings"]))
        return JobResult(len(asked), rows, sum(part["strangers"] for part in notes), resumed, seconds, warnings)

    def _answer(self, folder: Path, lists: Lists, todo: dict[int, pl.DataFrame]) -> Iterator[int]:
        """Write shards; yield the number of each."""
        processes = min(self.processes, len(todo))
        if processes <= 1:
            for number, asked in todo.items():
                self.write(number, lists, asked)
                yield number
            return
        # a forked process would inherit the threads and locks of the libraries in an unknown state
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, _open, (self, folder)) as pool:
            try:
                waiting = {pool.submit(_work, number, asked): number for number, asked in todo.items()}
                for future in as_completed(waiting):
                    future.result()
                    yield waiting[future]
            except BrokenProcessPool:
                raise JobError(
                    "a process died",
                    where=str(self.parts),
                    why="it was killed, perhaps for lack of memory",
                    hint="Use fewer --processes; the same command continues the job",
                ) from None
            finally:
                pool.shutdown(cancel_futures=True)

    def write(self, number: int, lists: Lists, asked: pl.DataFrame) -> None:
        """Write the lists of one shard.

        Args:
            number: of the shard.
            lists: answer the requests.
            asked: the users of the shard.
        """
        answered = lists.recommend(asked, self.template)
        notes = {"strangers": answered.strangers, "warnings": answered.warnings}
        self._notes(number).write_text(json.dumps(notes), encoding="utf-8")
        fsync(self._notes(number))
        staged = self._part(number).with_suffix(".writing")
        answered.frame.write_parquet(staged)
        fsync(staged)
        staged.rename(self._part(number))  # the part exists only when it is complete

    def _join(self, count: int) -> int:
        """Write the output from all shards and remove them; return its rows."""
        frame = pl.scan_parquet([self._part(number) for number in range(count)])
        staged = self.out.with_name(self.out.name + ".writing")
        (frame.sink_parquet if self.out.suffix == ".parquet" else frame.sink_csv)(staged)
        fsync(staged)
        rows = int(frame.select(pl.len()).collect().item())
        staged.rename(self.out)
        shutil.rmtree(self.parts)
        return rows

    def _claim(self, folder: Path, asked: pl.DataFrame, restart: bool) -> None:
        """Create the folder of shards, or check that an existing one is of the same job."""
        record = self.parts / "job.json"
        if restart or not record.exists():  # shards without a record are left from a removal that was interrupted
            shutil.rmtree(self.parts, ignore_errors=True)
        mine = json.dumps({"version": folder.name, "request": self._digest(asked), "shard": self.users_in_shard})
        self.parts.mkdir(parents=True, exist_ok=True)
        if not record.exists():
            record.write_text(mine, encoding="utf-8")
        elif record.read_text(encoding="utf-8") != mine:
            raise JobError(
                "the folder has shards of another job",
                where=str(self.parts),
                why="an interrupted job was for other users, other lists, or another version of the bundle",
                hint="Add --restart to discard them, or name another file",
            )

    def _digest(self, asked: pl.DataFrame) -> str:
        request = json.dumps(asdict(self.template), sort_keys=True, default=str)
        return hashlib.sha256(request.encode() + asked.write_ipc(None).getvalue()).hexdigest()

    def root(self, folder: Path) -> Path | None:
        """Return the root with the live changes of a version; None for a single bundle."""
        return None if folder == self.bundle else self.bundle

    def _part(self, number: int) -> Path:
        return self.parts / f"{number:06}.parquet"

    def _notes(self, number: int) -> Path:
        return self.parts / f"{number:06}.json"


_state: list[tuple[Job, Lists]] = []  # of a worker process


def _open(job: Job, folder: Path) -> None:
    """Open the bundle in a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process stops the workers
    _state.append((job, Lists(Recommender.load(folder, verify=False, root=job.root(folder)))))


def _work(number: int, asked: pl.DataFrame) -> None:
    job, lists = _state[0]
    job.write(number, lists, asked)
