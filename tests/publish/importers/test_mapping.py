from pathlib import Path

import numpy as np
import pytest

from recall.errors import DataError
from recall.publish.importers.foreign_model import ForeignModel, Parameters
from recall.publish.importers.mapping import MappedFeatures, read_mapping
from recall.publish.importers.text_formats import read_libffm, read_libfm

GOLDEN = Path(__file__).parent / "golden"
HEAD = "feature,side,field,value\n"


def written(folder: Path, text: str) -> Path:
    (folder / "mapping.csv").write_text(text, encoding="utf-8")
    return folder / "mapping.csv"


def test_fields_combine_their_features() -> None:
    mapped = read_mapping(GOLDEN / "mapping.csv", field_aware=True)
    assert list(mapped.fields) == ["user_id", "device", "item_id", "genre", "price"]
    assert [(one.number, one.value, one.kind, one.field_number) for one in mapped.fields["genre"]] == [
        (6, "drama", "bag", 3),
        (7, "comedy", "bag", 3),
    ]
    mapped.check(read_libfm(GOLDEN / "libfm.txt"), "mapping")
    mapped.check(read_libffm(GOLDEN / "libffm.txt"), "mapping")


def test_plain_values_become_features() -> None:
    mapped = read_mapping(GOLDEN / "mapping.csv", field_aware=True)
    item = MappedFeatures(mapped, "item").encode({"item_id": "i2", "genre": "comedy|horror|drama", "price": 1.5})
    assert item.features.tolist() == [5, 7, 6, 8]
    assert item.fields.tolist() == [2, 3, 3, 4]
    assert item.values.tolist() == [1, 1, 1, 1.5]
    user = MappedFeatures(mapped, "user").encode({"user_id": "stranger", "device": None})
    assert len(user.features) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("feature,side,value\n", "the mapping has no column 'field'"),
        ("feature,side,field,value,weight\n", "a mapping has no column 'weight'. Did you mean 'weights'"),
        (HEAD + "0,user,a,x\n1,itm,b,y\n", "row 2: side must be user or item, got 'itm'"),
        (HEAD + "0.5,user,a,x\n", "row 1: feature must be an integer of at least 0, got '0.5'"),
        (HEAD + "0,user,,x\n", "row 1: the field has no name"),
        (HEAD + "0,user,a,\n", "row 1: feature of field 'a' has no value"),
        (HEAD + "0,user,a,x\n0,user,a,y\n", "feature 0 of 'user' occurs more than once"),
        (HEAD + "0,user,a,x\n1,user,a,x\n", "value 'x' of 'a' occurs more than once"),
        (HEAD + "0,user,a,x\n1,item,a,y\n", "field 'a' has more than one side"),
        (HEAD + "0,user,a,x\n", "no feature is of side 'item'"),
        (
            "feature,side,field,value,kind\n0,user,a,x,bagg\n",
            "row 1: kind must be one of categorical, bag, numeric, got 'bagg'. Did you mean 'bag'",
        ),
        ("feature,side,field,value,kind\n0,user,a,,numeric\n1,user,a,y,numeric\n", "numeric field 'a' has 2 features"),
    ],
)
def test_an_invalid_mapping_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read_mapping(written(tmp_path, text), field_aware=False)


def test_a_field_aware_model_needs_field_numbers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column 'field_number'"):
        read_mapping(written(tmp_path, HEAD), field_aware=True)
    text = (GOLDEN / "mapping.csv").read_text().replace("numeric,4", "numeric,5")
    mapped = read_mapping(written(tmp_path, text), field_aware=True)
    with pytest.raises(DataError, match="field 'price' has number 5, and the model's fields are 0"):
        mapped.check(read_libffm(GOLDEN / "libffm.txt"), "mapping")


def test_every_feature_with_parameters_must_be_mapped(tmp_path: Path) -> None:
    model = read_libfm(GOLDEN / "libfm.txt")
    lines = (GOLDEN / "mapping.csv").read_text().splitlines(keepends=True)
    with pytest.raises(DataError, match="2 features of the model are not in the mapping: 2, 7"):
        read_mapping(written(tmp_path, "".join(lines[:3] + lines[4:8] + lines[9:])), field_aware=False).check(model, "mapping")
    parameters = model.parameters["user"]
    parameters.weights[7] = 0
    parameters.factors[7] = 0
    read_mapping(written(tmp_path, "".join(lines[:8] + lines[9:])), field_aware=False).check(model, "mapping")


def test_an_unknown_feature_is_refused(tmp_path: Path) -> None:
    mapped = read_mapping(written(tmp_path, HEAD + "0,user,a,x\n7,item,b,y\n"), field_aware=False)
    model = ForeignModel.together("fm", 0.0, Parameters(np.ones(2), np.ones((2, 1))))
    with pytest.raises(DataError, match="feature 7 is not one of the model's 2"):
        mapped.check(model, "mapping")
