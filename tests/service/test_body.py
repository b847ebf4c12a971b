"""Strict parsing of JSON, without a server."""

import json
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.body import DEPTH, parse_json
from service.errors import Kind, ProblemError

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
DOCUMENTS = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(DOCUMENTS)
def test_reads_every_json_document_as_the_standard_library_does(document: object) -> None:
    text = json.dumps(document)
    assert parse_json(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b'{"n": 1, "n": 2}', "/n"),
        (b'{"features": {"age": 1, "age": 1}}', "/features/age"),
        (b'[{"a": [0, {"b/c~": 1, "b/c~": 2}]}]', "/0/a/1/b~1c~0"),
        (b'{"a": 1, "\\u0061": 2}', "/a"),
        (b'{"a": {"b": 1}, "a": {"b": 2}}', "/a"),
    ],
)
def test_names_a_repeated_key(body: bytes, where: str) -> None:
    with pytest.raises(ProblemError) as caught:
        parse_json(body)
    assert caught.value.kind is Kind.NOT_JSON
    assert [fault.pointer for fault in caught.value.faults] == [where]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"NaN",
        b'{"n": Infinity}',
        b'{"n": 1e999}',
        b'{"n": ' + b"9" * 5000 + b"}",
        b'{"a": "\\ud800"}',
        b'{"a": "\xff"}',
        b'\xef\xbb\xbf{"n": 1}',
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 1020 + b"1" + b"}" * 1020,
        b"{'n': 1}",
        b'{"n": 1,}',
        b'{"n": 01}',
        b'{"a": "\x00"}',
        b"{} {}",
    ],
)
def test_refuses_invalid_json(body: bytes) -> None:
    with pytest.raises(ProblemError) as caught:
        parse_json(body)
    assert caught.value.kind is Kind.NOT_JSON
    assert caught.value.kind.status == 400
    assert len(caught.value.faults) == 1


@pytest.mark.parametrize("depth", [10, DEPTH - 1, DEPTH, DEPTH + 1, 200, 400, 900, 1000, 1020])
@pytest.mark.parametrize(("opening", "closing"), [(b'{"a":', b"}"), (b"[", b"]"), (b'[{"a":', b"}]")])
def test_deep_nesting_is_refused(depth: int, opening: bytes, closing: bytes) -> None:
    times = depth // len(closing)
    with pytest.raises(ProblemError) if times * len(closing) > DEPTH else nullcontext():
        parse_json(opening * times + b"1" + closing * times)


def test_wide_documents_are_not_deep() -> None:
    assert parse_json(b"[" + b",".join([b"[{}]"] * 1000) + b"]") == [[{}]] * 1000


def test_never_repeats_the_body() -> None:
    with pytest.raises(ProblemError) as caught:
        parse_json(b'{"password": hunter2}')
    assert "hunter2" not in caught.value.detail + caught.value.faults[0].message
