"""Errors cross process boundaries unchanged."""

import pickle

import pytest

from recall.errors import DataError, IndexDownError, RecallError, RequestError
from recall.serving.shards import JobError

DOWN = IndexDownError("the server does not answer", where="/index")
DOWN.repeated = True


@pytest.mark.parametrize(
    "error",
    [
        RequestError("n is 0", where="/n", why="a list has items", hint="Ask for 1 to 1000 results"),
        DataError("the text 'x' must be a number", where="items.csv: price", row=7),
        JobError("a process died"),
        DOWN,
    ],
)
def test_an_error_is_the_same_after_pickling(error: RecallError) -> None:
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is type(error)
    assert vars(found) == vars(error)
    assert (str(found), found.args) == (str(error), error.args)
