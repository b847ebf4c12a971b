"""Checks of a request's rules, channels and boosts that need the catalogue's columns but no user."""

from recall.serving.request import Request
from recall.serving.rerank.channels import Channels, LatestChannel, PopularChannel, read_channels
from recall.serving.rerank.item_columns import Facets
from recall.serving.rerank.pipeline import check_pins
from recall.serving.rerank.quota import Dedupe, Quota
from recall.serving.rerank.rules import read_rules
from recall.store.items.snapshot import Catalogue


def check_shaping(request: Request, catalogue: Catalogue, facets: Facets) -> None:
    """Check a request's rules, channels and boosts before its user is read.

    Args:
        request: checked by `recall.serving.request.check_request`.
        catalogue: as it is now.
        facets: of its bundle.

    Raises:
        RequestError: A rule, a channel or a boost is malformed, out of bounds, or names a column that items do not have.
    """
    rules = read_rules(request.rules)
    check_pins(rules, request.n)
    for place, rule in enumerate(rules):
        if isinstance(rule, Quota | Dedupe):
            facets.check_column(rule.column, f"/rules/{place}/column")
    if request.channels is not None:
        _check_channels(read_channels(request.channels), catalogue, facets)
    check_boosts(request, catalogue, facets)


def check_boosts(request: Request, catalogue: Catalogue, facets: Facets) -> None:
    """Raise RequestError when a boost is not known or its weight is out of bounds."""
    if request.boosts:
        facets.boosts(catalogue)[0].weights(request.boosts)


def _check_channels(channels: Channels, catalogue: Catalogue, facets: Facets) -> None:
    for place, one in enumerate(channels.lists):
        where = f"/channels/lists/{place}"
        if isinstance(one, LatestChannel):
            facets.latest(catalogue, one.column, f"{where}/column")
        elif isinstance(one, PopularChannel):
            facets.popular(catalogue, where)
