from recall.evaluation.html.charts import Points


def test_labels_of_a_map_are_not_over_one_another() -> None:
    groups = {"": [(0.0, 0.0, "a"), (1.0, 0.01, "b")], "x": [(0.5, 1.0, "c"), (0.2, 0.5, "d"), (0.1, 0.52, "e")]}
    assert [text for *_, text in Points.of("Map", groups).labels] == ["a", "c", "d"]
    many = {"": [(0.0, float(number), str(number)) for number in range(20)]}
    assert len(Points.of("Map", many).labels) == 8
