"""Find items by their titles and ids."""

from functools import partial

import polars as pl

from recall.data.column_names import title_of
from recall.features.canonical import TEXT
from recall.serving.recommender import Recommender
from recall.serving.request import Page
from recall.store.items.segment import Segment


def title_in(recommender: Recommender) -> str | None:
    """Return the column of a bundle's items that holds titles, if there is one."""
    key = recommender.bundle.encoder.schema.item_id
    return title_of(name for name, type_ in recommender.eligibility.types.items() if type_ == TEXT and name != key)


def find_items(recommender: Recommender, text: str, count: int = 10) -> Page:
    """Return the items whose id or title contains a text, ignoring case.

    The item of that id comes first, then titles that begin with the text, those with a word that does, and the others.

    Args:
        recommender: whose catalogue is searched.
        text: not empty.
        count: items wanted.

    Raises:
        BundleError: The items cannot be read.
    """
    catalogue, key = recommender.items.current(), recommender.bundle.encoder.schema.item_id
    parts = [_matching(one, text.lower(), key, title_in(recommender)) for one in catalogue.segments]
    ids = pl.concat(parts).sort("rank", maintain_order=True)["id"].head(count).to_list()
    return Page.of(catalogue, ids)


def _matching(segment: Segment, needle: str, key: str, title: str | None) -> pl.DataFrame:
    """Return id and rank of the live rows that contain a text in lower case."""
    texts = segment.derived(("texts", title), partial(_texts, segment, key, title))
    contains = pl.any_horizontal(pl.col("low", "title").str.contains(needle, literal=True))
    found = texts.filter(contains)
    begins, word = pl.col("title").str.starts_with(needle), pl.col("title").str.contains(" " + needle, literal=True)
    rank = pl.when(pl.col("low") == needle).then(0).when(begins).then(1).when(word).then(2).otherwise(3)
    return found.filter(~segment.tombstones.holds(found["row"].to_numpy())).select("id", rank=rank)


def _texts(segment: Segment, key: str, title: str | None) -> pl.DataFrame:
    ids = segment.content.item_column(key).cast(pl.String)
    titles = pl.lit("") if title is None else segment.content.item_column(title).fill_null("").str.to_lowercase()
    return pl.DataFrame({"id": ids}).select("id", low=pl.col("id").str.to_lowercase(), title=titles).with_row_index("row")
