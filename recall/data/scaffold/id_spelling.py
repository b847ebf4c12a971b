"""Detect ids that tables write differently, and conversions to one spelling."""

from pathlib import Path

import polars as pl

from recall.data.column_names import id_column
from recall.data.conversions import respell
from recall.data.scaffold.file_format import DetectedFormat
from recall.data.scaffold.id_values import MIN_DISTINCT, id_candidates, id_digits, share_in, share_of_digits
from recall.data.tables import Table

# Thresholds. Chosen, not tuned.
_MIN_RESPELLED = 0.5  # share of the distinct ids that must be those of the other table in one spelling
_MIN_VARIANTS = 0.02  # share of the distinct ids that differ from a second one in case only


def detect_id_spelling(
    detected: DetectedFormat, frame: pl.DataFrame, own: DetectedFormat, ids: pl.Series
) -> tuple[DetectedFormat, DetectedFormat]:
    """Detect ids in another case, with other zeros, or in another text (`spelling`).

    Args:
        detected: format of the users or items so far.
        frame: sample of the users or items.
        own: format of the interactions so far.
        ids: user or item ids of the interactions, [n].

    Returns:
        The format of the users or items, and that of the interactions, whose ids change only if the others cannot.
    """
    own_ids = ids.drop_nulls().cast(pl.String).unique(maintain_order=True)
    lengths = own_ids.str.len_chars().unique()
    table = Table(Path(), frame.lazy(), frame.schema)
    candidates = id_candidates(table, frame.columns, unique_ids=True)
    named = {ids.name, id_column(frame.columns, "user"), id_column(frame.columns, "item")}  # rows and marks may be of any kind
    for name in (name for name in frame.columns if name in named and not frame.schema[name].is_nested()):
        candidates = {
            name: frame[name].drop_nulls().cast(pl.String).str.strip_chars().unique(maintain_order=True),
            **candidates,
        }
    if any(share_in(own_ids, listed) > _MIN_RESPELLED for listed in candidates.values()):
        return detected, own
    for name, listed in candidates.items():
        for spelling in ("upper", "lower", *(lengths if len(lengths) == 1 else ())):
            respelled = listed.to_frame().select(respell(pl.col(name), spelling)).to_series()
            if share_in(own_ids, respelled) > _MIN_RESPELLED:
                return _respelled(detected, name, spelling, f"{listed[0]!r} here is {respelled[0]!r} in the interactions"), own
    own_digits = id_digits(own_ids)
    for name, listed in candidates.items():
        digits = id_digits(listed)
        if own_digits is None or digits is None or share_of_digits(own_digits, digits) <= _MIN_RESPELLED:
            continue
        if _differ_as_digits(listed, digits):
            why = f"{listed[0]!r} here and {own_ids[0]!r} in the interactions are numbers within a text"
            detected = _respelled(detected, name, "digits", why)
        if _differ_as_digits(own_ids, own_digits):
            why = f"{own_ids[0]!r} here and {listed[0]!r} in the other table are numbers within a text"
            own = _respelled(own, ids.name, "digits", why)
        break
    return detected, own


def detect_id_case(detected: DetectedFormat, ids: pl.Series) -> DetectedFormat:
    """Detect ids of the interactions that differ in case only (`spelling`).

    Args:
        detected: format of the interactions so far.
        ids: their user or item ids, [n].
    """
    counts = ids.drop_nulls().cast(pl.String).str.strip_chars().alias("id").value_counts(name="rows", sort=True)
    variants = counts.filter(pl.col("id").str.to_lowercase().is_duplicated())
    random = variants["id"].str.contains(r"\p{Ll}\p{Lu}|\p{Lu}{2}\p{Ll}").any()  # codes, whose ids may differ in case only
    if len(variants) <= _MIN_VARIANTS * len(counts) or len(counts) < MIN_DISTINCT or random:
        return detected
    most = str(variants["id"][0])
    spelling = "upper" if most == most.upper() else "lower"
    return _respelled(detected, ids.name, spelling, f"ids that differ in case only, such as {variants['id'][0]!r}, are one")


def _differ_as_digits(ids: pl.Series, digits: pl.Series) -> bool:
    """Return whether the spelling "digits" changes ids, and gives all their digits."""
    respelled = ids.to_frame().select(respell(pl.first(), "digits")).to_series()
    return bool((digits != ids).any() and (digits == respelled).all())


def _respelled(detected: DetectedFormat, name: str, spelling: str | int, why: str) -> DetectedFormat:
    whys = dict.fromkeys([detected.reasons.get("spelling", why), why])
    return detected.with_settings({"spelling": {**detected.settings.spelling, name: spelling}}, {"spelling": "; ".join(whys)})
