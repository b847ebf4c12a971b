from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from recall.errors import RequestError
from recall.serving.batch import Lists
from recall.serving.recommender import Recommender
from recall.serving.request import Request
from recall.serving.shards import Job, JobError

USERS = 12


@pytest.fixture
def job(published: Path, tmp_path: Path) -> Job:
    """Lists for all users, five in a shard."""
    return Job(published, None, Request(n=3), tmp_path / "lists.parquet", users_in_shard=5)


@pytest.fixture
def expected(recommender: Recommender) -> pl.DataFrame:
    """The same without shards."""
    lists = Lists(recommender)
    return lists.recommend(lists.everyone().to_frame(), Request(n=3)).frame


def quiet(done: int, users: int, line: str) -> None:
    pass


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_shards_join_to_the_lists_of_all_users(job: Job, expected: pl.DataFrame, processes: int) -> None:
    seen: list[int] = []
    written = replace(job, processes=processes).run(lambda done, users, line: seen.append(done))
    assert pl.read_parquet(job.out).equals(expected)
    assert (written.users, written.rows, written.strangers, written.resumed) == (USERS, len(expected), 0, 0)
    assert len(seen) == 3
    assert seen[-1] == USERS
    assert not job.parts.exists()
    assert written.rate > 0


def test_an_interrupted_job_continues(job: Job, expected: pl.DataFrame) -> None:
    def stop(done: int, users: int, line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.run(stop)
    kept = job.parts / "000000.parquet"
    before = kept.stat().st_mtime_ns
    (job.parts / "000001.writing").write_bytes(b"half")  # as a kill leaves it
    assert not job.out.exists()
    changed = replace(job, template=Request(n=2))
    with pytest.raises(JobError, match="another job"):
        changed.run(quiet)
    assert kept.stat().st_mtime_ns == before
    written = job.run(quiet)
    assert (written.users, written.resumed) == (USERS, 5)
    assert pl.read_parquet(job.out).equals(expected)
    with pytest.raises(KeyboardInterrupt):
        job.run(stop)
    assert changed.run(quiet, restart=True).rows == 2 * USERS


def test_shards_of_a_removal_that_was_interrupted_are_not_used(job: Job) -> None:
    def stop(done: int, users: int, line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.run(stop)
    (job.parts / "job.json").unlink()
    written = replace(job, template=Request(n=2)).run(quiet)
    assert (written.rows, written.resumed) == (2 * USERS, 0)


def test_some_users_with_context_and_csv(job: Job, recommender: Recommender) -> None:
    asked = pl.DataFrame({"user_id": ["u3", "nobody"], "device": ["tv", None]})
    out = job.out.with_suffix(".csv")
    written = replace(job, asked=asked, out=out).run(quiet)
    answer = recommender.recommend(Request(user_id="u3", context={"device": "tv"}, n=3))
    assert pl.read_csv(out)["item_id"].to_list()[:3] == list(answer.ids)
    assert (written.strangers, written.rows) == (1, 6)


def test_nobody_gives_an_empty_file(job: Job) -> None:
    asked = pl.DataFrame(schema={"user_id": pl.String})
    assert replace(job, asked=asked).run(quiet).rows == 0
    assert pl.read_parquet(job.out).columns[:3] == ["user_id", "rank", "item_id"]


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_bad_request_writes_nothing(job: Job, processes: int) -> None:
    with pytest.raises(RequestError, match="categry"):
        replace(job, template=Request(filter={"categry": "c1"}), processes=processes).run(quiet)
    assert not job.out.exists()
