"""Each format with a small file as written by its program, and with every kind of invalid line."""

from pathlib import Path

import numpy as np
import pytest

from recall.errors import DataError
from recall.publish.importers.array_formats import read_fm_arrays
from recall.publish.importers.foreign_model import FeatureRow, ForeignModel, Parameters
from recall.publish.importers.importer import read_model
from recall.publish.importers.text_formats import read_libffm, read_libfm, read_xlearn

GOLDEN = Path(__file__).parent / "golden"


def written(folder: Path, text: str) -> Path:
    path = folder / "model.txt"
    path.write_text(text, encoding="ascii")
    return path


def entries(*triples: tuple[int, int, float]) -> FeatureRow:
    features, fields, values = zip(*triples, strict=True)
    return FeatureRow(np.array(features), np.array(fields), np.array(values))


def test_a_libfm_model_is_parsed() -> None:
    model = read_libfm(GOLDEN / "libfm.txt")
    lines = (GOLDEN / "libfm.txt").read_text().splitlines()
    parameters = model.parameters["user"]
    assert (model.kind, model.bias, model.k, len(parameters)) == ("fm", 0.71, 2, 9)
    assert parameters.weights[3] == float(lines[6])
    assert parameters.factors[8].tolist() == [float(part) for part in lines[-1].split()]


def test_a_libfm_model_without_bias_and_weights_is_parsed(tmp_path: Path) -> None:
    model = read_libfm(written(tmp_path, "#pairwise interactions Vj,f\n1 2\n3 4\n"))
    assert model.bias == 0
    assert model.parameters["item"].weights.tolist() == [0, 0]
    alone = read_libfm(written(tmp_path, "#global bias W0\n1\n#unary interactions Wj\n2\n3\n#pairwise interactions Vj,f\n\n\n"))
    assert (alone.k, alone.parameters["item"].weights.tolist()) == (0, [2, 3])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "line 1 should hold the heading '#global bias W0', found the end of the file"),
        ("0.5\n", "line 1 should hold the heading '#global bias W0', found '0.5'"),
        ("#global bias W0\nx\n", "line 2 should hold numbers, found 'x'"),
        ("#global bias W0\n1\n2\n", "'#global bias W0' must have one number, got 2"),
        ("#global bias W0\n1\n#unary interactions Wj\n1 2\n", r"line 4 should hold numbers \(1 numbers, here are 2\)"),
        ("#pairwise interactions Vj,f\n1 2\n3\n", r"line 3 should hold numbers \(2 numbers, here are 1\)"),
        ("#pairwise interactions Vj,f\n1 2\n3 nan\n", "line 3 holds nan, which is not finite"),
        ("#pairwise interactions Vj,f\n1 2\n#global bias W0\n", "line 3 should hold one of the headings"),
        (
            "#unary interactions Wj\n1\n2\n#pairwise interactions Vj,f\n1 2\n",
            "there are 2 numbers under '#unary interactions Wj' and 1",
        ),
        ("#global bias W0\n1\n", "the model has no features"),
    ],
)
def test_an_invalid_libfm_model_is_refused_by_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read_libfm(written(tmp_path, text))


def test_a_libffm_model_is_parsed() -> None:
    model = read_libffm(GOLDEN / "libffm.txt")
    line = next(line for line in (GOLDEN / "libffm.txt").read_text().splitlines() if line.startswith("w7,3 "))
    assert (model.kind, model.bias, model.k) == ("ffm", 0.0, 2)
    assert model.parameters["user"].factors.shape == (9, 5, 2)
    assert model.parameters["user"].factors[7, 3].tolist() == [float(part) for part in line.split()[1:]]
    assert not model.parameters["user"].weights.any()


HEAD = "n 1\nm 2\nk 2\nnormalization 0\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("n 1\nm x\n", "line 2 should hold 'm' and an integer, found 'm x'"),
        ("n 1\nm 1\nk 1\nnormalization 1\n", "normalises instances, which inner products cannot reproduce"),
        ("n 0\nm 1\nk 1\nnormalization 0\n", "the model has 0 features"),
        (HEAD + "w0,0 1 2\nw0,2 1 2\n", "line 6 should hold an embedding w0,0 ... w0,1, found 'w0,2 1 2'"),
        (HEAD + "w0,0 1\n", r"line 5 should hold 2 factors \(2 numbers, here are 1\)"),
        (HEAD + "w0,0 1 inf\n", "line 5 holds inf"),
        (HEAD + "w0,0 1 2\n", "1 of 2 embeddings are missing, first w0,1"),
    ],
)
def test_an_invalid_libffm_model_is_refused_by_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read_libffm(written(tmp_path, text))


@pytest.mark.parametrize(("name", "kind", "shape"), [("linear", "fm", (9, 0)), ("fm", "fm", (9, 2)), ("ffm", "ffm", (9, 5, 2))])
def test_an_xlearn_model_is_parsed(name: str, kind: str, shape: tuple[int, ...]) -> None:
    model = read_xlearn(GOLDEN / f"xlearn_{name}.txt")
    assert (model.kind, model.bias) == (kind, -0.25)
    assert model.parameters["user"].factors.shape == shape
    last = (GOLDEN / f"xlearn_{name}.txt").read_text().splitlines()[-1].partition(": ")[2].split()
    if name != "linear":
        assert model.parameters["user"].factors.reshape(-1)[-2:].tolist() == [float(part) for part in last]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bias: 1\nw_0: 2\n", "line 2 should hold 'bias: w', 'i_0: w'"),
        ("i_0: 2\n", "should hold 'bias: w', found the end of the file"),
        ("bias: 1\n", "should hold a weight 'i_0: w'"),
        ("bias: 1\ni_0: 2\ni_2: 1\n", "feature 1 has no weight"),
        ("bias: 1\ni_0: 2\nv_0: 1 2\nv_0_0: 1 2\n", "line 4 should hold an embedding like those before, as"),
        ("bias: 1\ni_0: 2\ni_1: 2\nv_0: 1 2\nv_1: 1\n", r"line 5 should hold factors \(2 numbers, here are 1\)"),
        ("bias: 1\ni_0: 2\ni_1: 2\nv_0: 1 2\n", "there are 1 embeddings for 2 features"),
        ("bias: nan\ni_0: 2\n", "line 1 holds nan"),
    ],
)
def test_an_invalid_xlearn_model_is_refused_by_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read_xlearn(written(tmp_path, text))


def test_xlearn_requires_that_instances_are_not_normalised() -> None:
    with pytest.raises(DataError, match="--no-norm"):
        read_model("xlearn", GOLDEN / "xlearn_fm.txt")
    assert read_model("xlearn", GOLDEN / "xlearn_fm.txt", plain=True).k == 2


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"\x00\xff\x01")
    with pytest.raises(DataError, match="the file is not text"):
        read_libffm(tmp_path / "model.bin")
    with pytest.raises(DataError, match="no such file"):
        read_libfm(tmp_path / "other.txt")


@pytest.mark.parametrize("ending", ["", "_"])
def test_fastfm_and_myfm_arrays_are_loaded(ending: str, tmp_path: Path) -> None:
    factors = np.arange(6.0).reshape(3, 2)
    arrays = {"w0": np.array(0.5), "w": np.ones(3), "V": factors.T if ending else factors}
    np.savez(tmp_path / "fm.npz", **{name + ending: array for name, array in arrays.items()})
    model = read_fm_arrays(tmp_path / "fm.npz")
    assert model.bias == 0.5
    assert model.parameters["user"].factors.tolist() == factors.tolist()


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"w": np.ones(2)}, "there is no array 'V'"),
        ({"w": np.ones(2), "V": np.ones((3, 2))}, "there are 2 weights and 3 embeddings"),
        ({"w": np.ones((2, 1)), "V": np.ones((2, 2))}, r"array 'w' must have numbers in 1 dimensions, got float64 \[2, 1\]"),
        ({"w": np.array([1, np.nan]), "V": np.ones((2, 2))}, "array 'w' has 1 numbers that are not finite, first at \\[1\\]"),
    ],
)
def test_inconsistent_arrays_are_refused(arrays: dict[str, np.ndarray], said: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "fm.npz", **arrays)
    with pytest.raises(DataError, match=said):
        read_fm_arrays(tmp_path / "fm.npz")


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "fm.npz", w=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="the arrays cannot be read"):
        read_fm_arrays(tmp_path / "fm.npz")
    np.save(tmp_path / "one.npy", np.ones(2))
    with pytest.raises(DataError, match="got one array"):
        read_fm_arrays(tmp_path / "one.npy")


def test_the_definition_matches_a_manual_calculation() -> None:
    """Features a and b of the user and c of the item: every product written out."""
    weights, factors = np.array([0.1, 0.2, 0.3]), np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    user, item = entries((0, 0, 1.0), (1, 1, 0.5)), entries((2, 2, 2.0))
    first = 0.1 + 0.1 + 0.6
    model = ForeignModel.together("fm", 0.5, Parameters(weights, factors))
    assert model.score(user, item) == pytest.approx(0.5 + first + 11 * 0.5 + 17 * 2 + 39 * 1)
    sums = ForeignModel("sums", 0.0, {"user": Parameters(weights, factors), "item": Parameters(weights, factors)})
    assert sums.score(user, item) == pytest.approx(first + 17 * 2 + 39 * 1)
    towards = np.arange(9.0).reshape(3, 3, 1)  # v_{j,f} = 3 j + f
    aware = ForeignModel.together("ffm", 0.0, Parameters(np.zeros(3), towards))
    assert aware.score(user, item) == pytest.approx((1 * 3) * 0.5 + (2 * 6) * 2 + (5 * 7) * 1)
