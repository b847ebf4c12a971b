"""Any text is drafted or refused with one of the library's errors; so is any format in a configuration."""

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from recall.config import load_config, parse_config
from recall.data.checks import check
from recall.data.dataset import open_tables
from recall.data.profile import profile
from recall.data.scaffold.draft import draft
from recall.errors import RecallError

COLUMNS = ("user_id", "item_id", "ts", "price", "tags", "day", "clock", "")
CELLS = st.sampled_from(
    [
        *(
            "u1",
            "u2",
            "7",
            "1700000000",
            "1700009999",
            "01.02.2024",
            "18:30",
            "2024-02-30",
            "['a', 'b']",
            "{a,b}",
            "view",
            "yes",
        ),
        *(
            "",
            '"',
            "'",
            ",",
            ";",
            "|",
            "::",
            "  ",
            "\r",
            "\x00",
            "\ufeff",
            "\u2028",
            "#",
            "Total",
            "NA",
            "nan",
            "1e400",
            "99" * 20,
        ),
        *("1,5", "1.234,50 €", "5 EUR", "(3)", "−5", "50%", "12:61", "é", "日本", "x" * 300, "\x1f", "007", "=1", "[1", "{"),
    ]
)
SEPARATORS = st.sampled_from([",", ";", "\t", "|", "::", "  ", "§"])
PATTERNS = st.sampled_from(["%d.%m.%Y", "%d.%m.%Y %H:%M", "%s", "%Q", "%", "", "%H:%M", "%S.%f", "%z"])
NAMES = st.sampled_from([*COLUMNS, "nope"])
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252", "shift_jis"])


@st.composite
def texts(draw: st.DrawFn) -> str:
    separator, names = draw(SEPARATORS), draw(st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=5))
    rows = draw(st.lists(st.lists(CELLS, min_size=len(names), max_size=len(names)), max_size=12))
    lines = [separator.join(row) for row in (["user_id", "item_id", *names], *(["u1", "7", *row] for row in rows))]
    return draw(st.sampled_from(["", "Report\n\n"])) + draw(st.sampled_from(["\n", "\r\n", "\r"])).join(lines)


FORMATS = st.fixed_dictionaries(
    {},
    optional={
        "separator": SEPARATORS,
        "quote": st.sampled_from(["", '"', "'"]),
        "encoding": st.sampled_from(["utf-8", "utf-16", "punycode", "klingon"]),
        "header": st.lists(NAMES, min_size=1, max_size=4),
        "skip": st.integers(0, 3),
        "strip": st.booleans(),
        "ragged": st.just(value=True),
        "totals": st.just(["Total"]),
        "explode": NAMES,
        "carry": st.dictionaries(NAMES, NAMES, max_size=1),
        "unnest": st.booleans(),
        "numbers": st.dictionaries(NAMES, st.sampled_from(",."), max_size=1),
        "times": st.dictionaries(NAMES, PATTERNS, max_size=1),
        "booleans": st.dictionaries(NAMES, st.just(("yes", "no")), max_size=1),
        "lists": st.lists(NAMES, max_size=1),
        "backslashes": st.booleans(),
        "explode_by": st.sampled_from(",| "),
        "units": st.dictionaries(NAMES, st.just(("%", "EUR")), max_size=1),
        "durations": st.dictionaries(NAMES, st.sampled_from(["m:s", "h:m"]), max_size=1),
        "flags": st.dictionaries(st.just("event"), st.lists(NAMES, min_size=1, max_size=2), max_size=1),
        "dates": st.dictionaries(st.just("date"), st.lists(NAMES, min_size=3, max_size=4), max_size=1),
    },
)


@settings(max_examples=40, phases=[Phase.explicit, Phase.generate])
@given(texts(), ENCODINGS)
def test_any_text_is_drafted_or_refused(text: str, encoding: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "interactions.csv").write_bytes(text.encode(encoding, "replace"))
        try:
            (folder / "recall.toml").write_text(draft(folder))
        except RecallError:
            return
        config = load_config(folder / "recall.toml")  # every draft is valid
        check(config, folder)
        with suppress(RecallError):
            profile(config, open_tables(config.data, folder))


@settings(max_examples=60, phases=[Phase.explicit, Phase.generate])
@given(texts(), FORMATS, st.sampled_from(["error", "left out"]))
def test_any_format_is_read_or_refused(text: str, form: dict[str, Any], missing: str) -> None:
    fields = {"user_id": {"side": "user", "kind": "categorical"}, "item_id": {"side": "item", "kind": "categorical"}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "log.txt").write_text(text)
        data = {"interactions": "log.txt", "formats": {"interactions": form}, "missing_ids": missing}
        with suppress(RecallError):
            config = parse_config({"data": data, "fields": fields})
            check(config, folder)
            profile(config, open_tables(config.data, folder))
