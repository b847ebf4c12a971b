from recall.config import parse_config
from recall.data.dataset import load_dataset
from recall.data.split import TEST, TRAIN, VALID
from recall.features.encoder import FeatureEncoder
from recall.training.labelled import LabelledNegatives
from recall.training.pairs import ObservedPairs
from tests.features.rows import as_sets

ROWS = """user_id,item_id,w,y,split
a,x,1,1,train
a,y,2,0,train
a,y,3,0,train
b,x,1,0,train
b,z,1,1,train
b,y,1,0,test
"""
FIELDS = {"user_id": {"side": "user", "kind": "categorical"}, "item_id": {"side": "item", "kind": "categorical"}}


def dataset_of(folder, **data):
    (folder / "e.csv").write_text(ROWS)
    values = {"interactions": "e.csv", "weight": "w", "split": {"by": "column"}, **data}
    return load_dataset(parse_config({"data": values, "fields": FIELDS}), folder)


def test_what_was_shown_and_not_taken_stands_beside_the_observed_pairs(tmp_path):
    dataset = dataset_of(tmp_path, label="y")
    encoder = FeatureEncoder.fit(dataset)
    negatives = LabelledNegatives.of(dataset, encoder, TRAIN)
    users, items = dataset.users["user_id"].to_list(), dataset.items["item_id"].to_list()
    assert len(negatives) == 3
    assert len(negatives.contexts) == 2
    shown = [
        (as_sets(negatives.contexts)[owner], items[item], weight)
        for owner, item, weight in zip(negatives.owners, negatives.items, negatives.weights, strict=True)
    ]
    a, b = (as_sets(encoder.encode_user({"user_id": user}).rows)[0] for user in users)
    assert shown == [(a, "y", 2.0), (a, "y", 3.0), (b, "x", 1.0)]
    observed = ObservedPairs.of(dataset, encoder, dataset.training)
    assert [items[item] for item in observed.observed] == ["x", "z"]
    assert len(LabelledNegatives.of(dataset, encoder, TEST)) == 1
    assert LabelledNegatives.of(dataset, encoder, VALID) is None


def test_without_labels_there_are_none(tmp_path):
    dataset = dataset_of(tmp_path)
    assert LabelledNegatives.of(dataset, FeatureEncoder.fit(dataset), TRAIN) is None
