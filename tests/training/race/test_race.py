from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from numba import njit
from numba.core.event import TimingListener

from recall.config import parse_config
from recall.data.dataset import Dataset, load_dataset, open_tables
from recall.data.split import GIVEN, TRAIN, VALID
from recall.data.synthetic import SyntheticConfig, generate
from recall.errors import ConfigError
from recall.evaluation.bootstrap import PerRequestMetrics
from recall.features.encoder import FeatureEncoder
from recall.training.race import race as race_module
from recall.training.race.decide import as_in_bundle, load_race, on_everything, resolved, save_race
from recall.training.race.entrant import Entrant, SharedData, merged, sampled, with_validation
from recall.training.race.race import race
from recall.training.race.recipes import SPARSE, SQUARES, Recipe, Scale, field_choices, has_item_ids_only, neighbours, softmaxes
from recall.training.train import train
from tests.conftest import TINY

LOG = {
    "data": {"time": "time", "split": {"by": "last", "test": 1, "valid": 1}},
    "fields": {
        "user_id": {"side": "user", "kind": "categorical"},
        "previous": {"kind": "history", "lags": [[1, 1], [2, 3]]},
        "item_id": {"side": "item", "kind": "categorical"},
    },
    "model": {"k": 8},
    "train": {"objective": "auto"},
    "evaluation": {"intervals": 100},
}


def tiny(**sections):
    return parse_config({**TINY, "model": {"k": 4}, "train": {"objective": "auto"}, **sections})


@pytest.fixture(scope="module")
def cycles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log in which every item follows from the one before: 40 users walk in one circle of 30 items."""
    folder = tmp_path_factory.mktemp("cycles")
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 30, 40)
    rows = [(f"u{user}", f"i{(start + step) % 30:02}", step) for user, start in enumerate(starts) for step in range(25)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "time"], orient="row").write_parquet(folder / "interactions.parquet")
    return folder


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of chance: every user takes items at random, all equally popular."""
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(1)
    rows = [(f"u{user}", f"i{item:02}", step) for user in range(40) for step, item in enumerate(rng.permutation(60)[:8])]
    pl.DataFrame(rows, schema=["user_id", "item_id", "time"], orient="row").write_parquet(folder / "interactions.parquet")
    return folder


def ran(config, folder: Path, seconds: float = 600.0):
    left = []
    return race(config, load_dataset(config, folder), seconds, left.append), left


def test_the_race_finds_that_order_decides(cycles: Path) -> None:
    config = parse_config(LOG)
    raced, left = ran(config, cycles)
    assert raced.placed[0][1].value > 0.9
    assert raced.metric == "ndcg@10"
    assert raced.requests == 40
    assert raced.beats_popularity
    assert "previous" in resolved(config, raced.values).fields
    names = [one.name for one in left]
    assert {recipe.name for recipe in SQUARES} <= set(names)
    assert any(name.startswith("softmax") for name in names)
    assert any(name.startswith("bpr") for name in names)
    after = [name.partition(", after ")[2] for name in names if name.startswith("softmax, temperature 0.1, after")]
    assert len({name.partition(", with")[2] for name in after}) == 2  # also after other fields, which are as good here
    assert any("without user_id" in name for name in names)
    assert any("without previous" in name for name in names)


def test_the_winner_has_the_best_figure_of_all(cycles: Path) -> None:
    raced, left = ran(parse_config(LOG), cycles)
    assert raced.name == raced.placed[0][0].name
    better = [one for one in left if one.figure > raced.placed[0][1].value]
    # a step from the winner must gain more than a standard error
    assert all(one.name.startswith(raced.name.partition(",")[0]) for one in better)
    assert raced.lead is not None
    assert raced.lead.difference.value == pytest.approx(raced.placed[0][1].value - raced.placed[1][1].value)


def test_equal_races_have_equal_winners(cycles: Path) -> None:
    first, second = (ran(parse_config(LOG), cycles)[0] for _ in range(2))
    assert first.values == second.values
    assert [(one.name, found) for one, found in first.placed] == [(one.name, found) for one, found in second.placed]


def test_a_log_of_chance_does_not_beat_popularity(noise: Path) -> None:
    raced, _ = ran(parse_config(LOG), noise)
    assert not raced.beats_popularity
    assert raced.over_popularity.difference.low < 0


def test_the_time_ends_a_race_but_one_recipe_always_runs(cycles: Path) -> None:
    raced, left = ran(parse_config(LOG), cycles, 1e-6)
    assert [one.name for one in left] == ["square"]
    assert len(left[0].figures) == 3  # one recipe has its first sweeps, regardless of the time
    assert raced.lead is None
    assert raced.over_default is None
    assert "sweeps" in raced.values["train"]


def test_what_was_tuned_on_one_data_set_can_be_left_out(noise: Path) -> None:
    left: list[Entrant] = []
    race(parse_config(LOG), load_dataset(parse_config(LOG), noise), 600.0, left.append, without="toys")
    names = [one.name for one in left]
    assert {recipe.name for recipe in SQUARES if recipe.tuned_on != "toys"} <= set(names)
    assert not [name for name in names if "a long previous" in name]
    own = {recipe.name for recipe in SQUARES if recipe.tuned_on == "toys"}
    assert own
    assert not own & {name.partition(", with")[0] for name in names}


def test_a_field_aware_machine_has_fewer_factors_the_more_fields_meet(noise: Path) -> None:
    ids = {side: {"side": side, "kind": "categorical", "column": f"{side}_id"} for side in ("user", "item")}
    fields = {f"{side}{number}": ids[side] for side in ids for number in range(4)}
    raced, _ = ran(parse_config({**LOG, "fields": fields, "model": {"kind": "ffm"}}), noise, 1e-6)
    assert raced.values["model"] == {"kind": "ffm", "k": 512 // 16}


def test_a_busy_machine_gives_a_race_four_times_the_seconds_unless_they_are_configured(
    noise: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def recipes(seconds: float | None) -> int:
        clock = SimpleNamespace(monotonic=count().__next__, process_time=lambda: 0.0)  # each look takes a second, and no core
        monkeypatch.setattr(race_module, "time", clock)
        left = []
        race(parse_config(LOG), load_dataset(parse_config(LOG), noise), seconds, left.append)
        return sum(len(one.figures) for one in left)

    configured, default = recipes(race_module.SECONDS), recipes(None)
    assert 0 < configured < default
    assert default == pytest.approx(4 * configured, rel=0.2)


def test_compiling_kernels_takes_no_time_of_a_race(noise: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listeners: list[TimingListener] = []

    class Listener(TimingListener):
        def __init__(self) -> None:
            super().__init__()
            listeners.append(self)

    def compile_kernel(entrant: Entrant) -> None:
        entrants.append(entrant)
        njit(lambda number: number + 1)(1)

    entrants: list[Entrant] = []
    dataset = load_dataset(parse_config(LOG), noise)
    monkeypatch.setattr(race_module, "TimingListener", Listener)
    race(parse_config(LOG), dataset, 1e-6, compile_kernel)
    assert len(entrants) == 1
    assert listeners[0].duration > 0
    monkeypatch.setattr(Listener, "done", True)
    monkeypatch.setattr(Listener, "duration", 1e9)  # seconds: no time is left to end the race
    assert len(ran(parse_config(LOG), noise, 1e-6)[1]) > len(SQUARES)


def test_the_time_may_end_in_the_opening_of_a_neighbour(cycles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poor = Recipe("square", "does not lead in the end", {"objective": "square", "regularisation": 1e3, "sweeps": 2})
    monkeypatch.setattr(race_module, "SQUARES", (poor,))
    dataset, left = load_dataset(parse_config(LOG), cycles), []
    for seconds in range(86, 100):
        clock = SimpleNamespace(monotonic=count().__next__, process_time=lambda: 0.0)
        monkeypatch.setattr(race_module, "time", clock)
        left.clear()
        raced = race(parse_config(LOG), dataset, float(seconds), left.append)
        assert raced.name.startswith("softmax")
        if left[-1].best is None:
            break
    assert len(left[-1].figures) == 1


def test_a_large_log_is_raced_on_a_share_of_its_users(cycles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race_module, "_FEWEST_TRAIN", 460)  # of 920
    raced, _ = ran(parse_config(LOG), cycles)
    assert raced.share == 0.5
    assert 10 <= raced.requests <= 30


def test_users_that_are_not_drawn_neither_train_nor_validate(tiny_folder: Path) -> None:
    dataset = load_dataset(tiny(), tiny_folder)
    half = sampled(dataset, 0.5, 3)
    split, user = (half.events[name].to_numpy() for name in ("split", "user"))
    kept = np.unique(user[split != GIVEN])
    assert 0 < len(kept) < 12
    assert set(user[split == VALID]) <= set(kept)
    assert (split[np.isin(user, kept)] == dataset.events["split"].to_numpy()[np.isin(user, kept)]).all()
    assert sampled(dataset, 1.0, 3) is dataset


def test_the_winner_is_trained_on_the_validation_part_too(cycles: Path) -> None:
    config = parse_config(LOG)
    raced, _ = ran(config, cycles, 5.0)
    final = resolved(config, raced.values)
    dataset = load_dataset(final, cycles)
    assert len(dataset.select(VALID)) == 0
    assert len(dataset.select(TRAIN)) == 40 * 24
    trained = train(final, dataset, FeatureEncoder.fit(dataset), lambda _: None)
    assert trained.sweeps == final.method.sweeps


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ({"by": "column"}, {"train": ("train", "valid"), "valid": ()}),
        ({"by": "last", "test": 2, "valid": 3}, {"test": 2, "valid": 0}),
        ({"by": "time", "test": 0.9, "valid": 0.8}, {"test": 0.9, "valid": None}),
        ({"by": "random"}, {"test": 0.1, "valid": 0.0}),
        ({"by": "users", "given": 0.3}, {"test": 0.1, "valid": 0.0, "given": 0.3}),
        ({"by": "none"}, {}),
    ],
)
def test_every_split_can_train_on_its_validation_part(split, expected) -> None:
    data = tiny(data={**TINY["data"], "split": split, "carve_last": 2}).data
    whole = on_everything(data)
    assert {name: getattr(whole.split, name) for name in expected} == expected
    assert whole.split.by == split["by"]
    assert (whole.carve, whole.carve_last) == (0.0, 0)


def test_without_a_validation_part_the_last_interactions_are_raced_on(tiny_folder: Path) -> None:
    config = tiny(data={**TINY["data"], "split": {"by": "none"}})
    _, dataset = with_validation(config, load_dataset(config, tiny_folder), open_tables(config.data, tiny_folder))
    assert 0 < len(dataset.select(VALID)) <= 12


def dataset_with_tags(tmp_path: Path, tags: int) -> tuple[dict, Dataset]:
    shop = generate(SyntheticConfig(users=30, items=40, interactions=400))
    shop.write(tmp_path)
    items = pl.read_parquet(tmp_path / "items.parquet")
    lists = [[f"t{(number * 17 + step) % tags}" for step in range(tags // 20)] for number in range(len(items))]
    items.with_columns(tags=pl.Series(lists)).write_parquet(tmp_path / "items.parquet")
    values = {
        "data": {"items": "items.parquet", "time": "time", "split": {"by": "last"}},
        "fields": {**LOG["fields"], "tags": {"side": "item", "kind": "bag"}},
        "train": {"objective": "auto"},
    }
    return values, load_dataset(parse_config(values), tmp_path)


@pytest.mark.parametrize(("tags", "costly"), [(40, False), (700, True)])
def test_a_field_of_many_values_is_raced_against_its_absence(tmp_path: Path, tags: int, costly: bool) -> None:
    values, dataset = dataset_with_tags(tmp_path, tags)
    config = parse_config(values)
    choices = dict(field_choices(config, dataset, FeatureEncoder.fit(dataset)))
    longest = ["with a long previous and without user_id", "with a long previous", "with a long previous of norm sqrt"]
    history = [*longest, "without user_id", "without previous"]
    assert list(choices) == [*history, *(["without tags"] if costly else [])]
    longer = merged(config, {**choices[history[0]], "train": {"objective": "square"}})
    assert list(longer.fields) == ["previous", "item_id", "tags"]
    assert (longer.fields["previous"].lags, longer.fields["previous"].norm) == (((1, 50),), "mean")
    other = dict(field_choices(longer, dataset, FeatureEncoder.fit(dataset)))["with previous of norm sqrt"]
    turned = merged(longer, {**other, "train": {"objective": "square"}})
    assert (turned.fields["previous"].lags, turned.fields["previous"].norm) == (((1, 50),), "sqrt")
    if costly:
        less = merged(config, {**choices["without tags"], "train": {"objective": "square"}})
        assert list(less.fields) == ["user_id", "previous", "item_id"]
        assert less.data.attributes == ("tags",)  # requests may go on filtering by it
        assert "tags" in load_dataset(less, tmp_path).items.columns


@pytest.mark.parametrize("weighted", [{"weights": [1, 0.5]}, {"shared": True, "learn_weights": True}])
def test_ranges_that_have_weights_stay(tmp_path: Path, weighted: dict) -> None:
    values, dataset = dataset_with_tags(tmp_path, 4)
    values = {**values, "fields": {**values["fields"], "previous": {**LOG["fields"]["previous"], **weighted}}}
    choices = dict(field_choices(parse_config(values), dataset, FeatureEncoder.fit(dataset)))
    assert list(choices) == ["with previous of norm mean", "without user_id", "without previous"]
    config = merged(parse_config(values), {**choices["with previous of norm mean"], "train": {"objective": "square"}})
    assert config.fields["previous"].lags == ((1, 1), (2, 3))


def test_fields_of_a_cross_and_of_the_context_stay(tiny_folder: Path) -> None:
    config = tiny()
    dataset = load_dataset(config, tiny_folder)
    choices = dict(field_choices(config, dataset, FeatureEncoder.fit(dataset)))
    assert list(choices)[3:] == ["without user_id", "without history", "with age, price in buckets"]
    cut = merged(config, {**choices["with age, price in buckets"], "train": {"objective": "square"}})
    assert {name: (cut.fields[name].kind, cut.fields[name].scale) for name in ("age", "price")} == dict.fromkeys(
        ("age", "price"), ("numeric", "buckets")
    )


def test_without_times_a_bag_of_the_other_items_competes(noise: Path) -> None:
    fields = {name: LOG["fields"][name] for name in ("user_id", "item_id")}
    data = {"split": {"by": "random", "test": 0.1, "valid": 0.2}}
    config = parse_config({**LOG, "data": data, "fields": fields})
    dataset = load_dataset(config, noise)
    choices = dict(field_choices(config, dataset, FeatureEncoder.fit(dataset)))
    assert list(choices) == ["with a bag of the user's other items", "with a bag of the user's other items and without user_id"]
    for values, left in zip(choices.values(), (["user_id", "item_id", "others"], ["item_id", "others"]), strict=True):
        assert list(merged(config, {**values, "train": {"objective": "square"}}).fields) == left
    raced, left = ran(config, noise)
    assert sum("bag of the user's other items" in one.name and not one.fault for one in left) >= 2
    taken = parse_config({**LOG, "data": data, "fields": {**fields, "others": {**fields["user_id"], "column": "user_id"}}})
    assert (
        "others_"
        in dict(field_choices(taken, dataset, FeatureEncoder.fit(dataset)))["with a bag of the user's other items"]["fields"]
    )
    assert raced.popularity.value >= 0


def test_k_is_raced_only_where_it_is_not_configured() -> None:
    names = [name for name, _, _ in neighbours({"objective": "square"}, 64, False)]
    assert (names[0], names[-1]) == ("k 128", "k 32")
    assert all(k == 64 for _, _, k in neighbours({"objective": "square"}, 64, True))


def test_a_history_that_is_long_already_needs_no_other_fields(cycles: Path) -> None:
    history = {"previous": {"kind": "history", "lags": [[1, 20]], "decay": 1.0}}
    config = parse_config({**LOG, "fields": {**history, "item_id": LOG["fields"]["item_id"]}})
    raced, left = ran(config, cycles)
    assert raced.placed[0][1].value > 0.5
    assert not any("long" in one.name or "without" in one.name for one in left)
    assert any("of norm mean" in one.name for one in left)


def test_all_recipes_and_their_neighbours_are_valid_configurations() -> None:
    large = Scale(contexts=10_000_000, users=1_000_000, items=1_000_000, pairs=20_000_000)
    recipes = [*SQUARES, *softmaxes(SPARSE.train, Scale(10, 10, 10, 20)), *softmaxes(SQUARES[0].train, large)]
    for recipe in recipes:
        base = parse_config({**TINY, "model": {"cosine": recipe.cosine}, "train": dict(recipe.train)})
        assert base.train.objective == recipe.train["objective"]
        for _, change, k in neighbours(recipe.train, 64, False):
            parse_config({**TINY, "model": {"k": k, "cosine": recipe.cosine}, "train": {**recipe.train, **change}})
    sampled_softmax = softmaxes(SQUARES[0].train, large)[0]
    assert sampled_softmax.train["candidates"] == "sampled"
    assert sampled_softmax.train["opening"]["sweeps"] == 5


def test_the_softmax_of_data_with_one_context_for_each_user_has_more_factors_and_epochs() -> None:
    usual = softmaxes(SQUARES[0].train, Scale(contexts=300_000, users=3_000, items=4_000, pairs=300_000))[0]
    many = softmaxes(SQUARES[0].train, Scale(contexts=30_000, users=30_000, items=40_000, pairs=700_000))[0]
    less = softmaxes(SQUARES[0].train, Scale(contexts=30_000, users=30_000, items=40_000, pairs=600_000))[0]
    small = softmaxes(SQUARES[0].train, Scale(contexts=900, users=900, items=1_500, pairs=12_000))[0]
    assert (usual.name, usual.k) == ("softmax, temperature 0.1", 64)
    assert (many.name, many.k) == ("softmax, temperature 0.08", 192)
    assert less.k == 128
    part = Scale(contexts=3_000, users=3_000, items=40_000, pairs=70_000, share=0.1)
    few = "softmax, temperature 0.12"
    assert [(one.name, one.k) for one in softmaxes(SQUARES[0].train, part)[:2]] == [(few, 192), (many.name, 192)]
    assert (small.name, small.k, small.train["batch"]) == (few, 64, 256)
    assert many.train["epochs"] > usual.train["epochs"]
    assert many.train["batch"] == 1024
    assert softmaxes(SQUARES[0].train, Scale(900, 900, 1_500, 12_000), least_k=128)[0].k == 128
    assert "candidates" not in many.train


def test_no_items_train_as_new_ones_where_their_ids_are_all_there_is() -> None:
    ids = {"user_id": {"side": "user", "kind": "categorical"}, "item_id": {"side": "item", "kind": "categorical"}}
    assert has_item_ids_only(parse_config({**TINY, "fields": ids}).schema_)
    more = {**ids, "category": {"side": "item", "kind": "categorical"}}
    assert not has_item_ids_only(parse_config({**TINY, "fields": more}).schema_)
    scale = Scale(contexts=30_000, users=30_000, items=40_000, pairs=700_000)
    assert {one.train["drop"] for one in softmaxes(SQUARES[0].train, replace(scale, item_ids_only=True))} == {0.0}
    assert not any("drop" in one.train for one in softmaxes(SQUARES[0].train, scale))


def test_settings_of_the_configuration_are_kept_for_the_winner() -> None:
    config = tiny(train={"objective": "auto", "new_items": 0.5, "stopping": {"metric": "recall", "at": 20}})
    final = resolved(config, {"model": {"k": 4}, "train": {"objective": "square", "sweeps": 3}})
    assert (final.method.sweeps, final.train.new_items) == (3, 0.5)
    assert (final.train.stopping.metric, final.train.stopping.at) == ("recall", 20)


def test_a_kept_race_is_read_back(tmp_path: Path) -> None:
    save_race(tmp_path / "r.json", {"train": {"objective": "square"}}, {"winner": "square"})
    assert load_race(tmp_path / "r.json") == ({"train": {"objective": "square"}}, {"winner": "square"})


def test_a_bundle_goes_on_with_its_own_recipe() -> None:
    config = tiny()
    final = resolved(config, {"model": {"k": 4}, "train": {"objective": "square", "sweeps": 3}, "fields": {"history": None}})
    again = as_in_bundle(config, final.model_dump(mode="json", by_alias=True), "000001-x")
    assert again.train == final.train
    assert again.fields == final.fields
    assert again.data.split == final.data.split
    with pytest.raises(ConfigError, match="records no objective"):
        as_in_bundle(config, {}, "000001-x")


def test_nothing_but_a_race_resolves_auto(tiny_folder: Path) -> None:
    config = tiny()
    dataset = load_dataset(config, tiny_folder)
    with pytest.raises(ConfigError, match="chosen by a race"):
        train(config, dataset, FeatureEncoder.fit(dataset), lambda _: None)


def test_a_race_of_cosines_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"chooses model\.cosine"):
        tiny(model={"cosine": True})


def test_large_data_always_race_an_objective_beside_the_squares(cycles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race_module, "_SMALL", 100)
    monkeypatch.setattr(race_module, "SECONDS", 1e-6)
    left: list[Entrant] = []
    race(parse_config(LOG), load_dataset(parse_config(LOG), cycles), None, left.append)
    first = next(one for one in left if not one.name.startswith("square"))
    assert first.name.startswith("softmax")
    assert len(first.figures) > first.config.method.opened


@pytest.mark.parametrize(("share", "epochs"), [(1.0, 2), (0.5, 4), (0.1, 9)])
def test_the_final_training_has_more_epochs_than_a_race_on_some_of_the_users(cycles: Path, share: float, epochs: int) -> None:
    train = {"objective": "softmax", "epochs": 9}
    config = parse_config({**LOG, "train": train})
    one = Entrant("one", {"train": train}, config, SharedData.of(config, load_dataset(config, cycles)))
    one.figures.extend([0.3, 0.5, 0.1])
    users = np.arange(50)
    one.best, one.latest = (PerRequestMetrics(users, {one.metric: np.full(50, figure)}) for figure in (0.5, 0.1))
    assert race_module._with_sweeps(one, share)["train"]["epochs"] == epochs


@pytest.mark.parametrize("histories", [True, False])
def test_a_cheap_square_loss_is_refined_before_other_objectives_without_histories(noise: Path, histories: bool) -> None:
    fields = {name: field for name, field in LOG["fields"].items() if histories or name != "previous"}
    _, left = ran(parse_config({**LOG, "fields": fields, "model": {}}), noise)
    names = [one.name for one in left]
    softmax = next(at for at, name in enumerate(names) if name.startswith("softmax"))
    refined = [at for at, name in enumerate(names) if name.startswith("square") and name.endswith(", k 128")]
    assert bool(refined and refined[0] < softmax) is not histories
