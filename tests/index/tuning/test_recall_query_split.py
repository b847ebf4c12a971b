import numpy as np
import pytest

from recall.index.tuning.recall import QuerySplit


@pytest.mark.parametrize("count", [1, 7, 8, 100, 9000])
def test_every_user_is_in_one_part(count: int) -> None:
    vectors = np.arange(count, dtype=np.float32)[:, None]
    users = QuerySplit.make(vectors, seed=1)
    parts = (users.fitting, users.tuning, users.verification)
    assert sorted(np.concatenate(parts)[:, 0]) == list(range(count))
    assert len(users.fitting) >= 1
    assert len(users.verification) >= count * 3 // 4 - 1
    assert count < 2 or list(users.fitting[:, 0]) != list(range(len(users.fitting))) or count < 16


def test_verification_rounds_use_different_users() -> None:
    users = QuerySplit.make(np.arange(1000, dtype=np.float32)[:, None], seed=1)
    looks = users.test_rounds
    assert [len(look) for look in looks] == [376, 187, 187]
    assert len(np.unique(np.concatenate(looks))) == 750


def test_the_seed_determines_the_parts() -> None:
    vectors = np.arange(100, dtype=np.float32)[:, None]
    one, same, other = (QuerySplit.make(vectors, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.fitting, same.fitting)
    assert not np.array_equal(one.fitting, other.fitting)
