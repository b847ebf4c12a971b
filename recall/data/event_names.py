"""What events are called, and what one of each should count until somebody says better."""

from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from recall.data.outcome_names import named, words

_WEIGHTS = {
    1.0: named(
        "view viewed click clicked pv visit browse detail open opened play played listen listened watch watched read search "
        "to-read currently-reading pageview viewitem started start "
        "angesehen gesehen geklickt vu consulte clique visto clicado visualizado bekeken geklikt просмотр 浏览 閲覧"
    ),
    2.0: named(
        "like liked fav favorite favourite favorited save saved wishlist bookmark share shared follow rate rated review "
        "interested shortlist shortlisted complete completed finish finished repeat"
    ),
    3.0: named("cart basket addtocart add warenkorb panier carrito carrinho carrello winkelwagen корзина 加购 カート"),
    5.0: named(
        "purchase purchased buy bought order ordered transaction checkout pay paid install installed subscribe subscribed "
        "apply applied application hire hired accept accepted book booked booking conversion convert converted download yes "
        "gekauft bestellt kauf achete achat comprado compra comprou acquistato acquisto gekocht купил покупка 购买 購入 "
        "ja oui si sim tak ano igen evet да 是 はい 예 wahr vrai verdadero verdadeiro vero waar"
    ),
}
_NOT_TAKEN = named(
    "impression impressions impress shown show display displayed expose exposure skip skipped dislike disliked hide hidden "
    "ignore ignored reject rejected dismiss dismissed no decline declined "
    "angezeigt abgelehnt affiche mostrado rechazado mostrato rifiutato "
    "nein non nao nee nej nie ne nem hayır нет 否 いいえ 아니요 falsch faux falso onwaar"
)
_UNDONE = named(
    "remove removed delete deleted unlike unlist return returned refund refunded cancel cancelled canceled block report"
)


@dataclass(frozen=True, slots=True)
class EventRule:
    """What each event counts: a proposal.

    Attributes:
        weights: by name.
        left_out: names of what undoes another event.
        not_taken: names of what was shown and not taken.
        unknown: names among the weights that are not known here, and count 1.
    """

    weights: dict[str, float]
    left_out: tuple[str, ...]
    not_taken: tuple[str, ...]
    unknown: tuple[str, ...]


def known_events(names: Iterable[str]) -> list[str]:
    """Those of the names that events are known to have."""
    return [name for name in names if _meaning(name) is not None]


def event_rule(names: pl.Series) -> EventRule:
    """A proposal for all events of a column."""
    meanings = {name: _meaning(name) for name in names.unique().sort()}
    weights = {name: meaning for name, meaning in meanings.items() if isinstance(meaning, float)}
    unknown = tuple(name for name, meaning in meanings.items() if meaning is None)
    weights |= dict.fromkeys(unknown, 1.0)
    left_out, not_taken = (
        tuple(name for name, meaning in meanings.items() if meaning == kind) for kind in ("left out", "not taken")
    )
    if not weights:  # something must count
        return EventRule(dict.fromkeys(meanings, 1.0), (), (), tuple(meanings))
    return EventRule(dict(sorted(weights.items(), key=lambda one: one[1])), left_out, not_taken, unknown)


def _meaning(name: str) -> float | str | None:
    parts = {*words(name), name.strip().lower(), "".join(words(name))}
    if parts & _UNDONE:
        return "left out"
    if parts & _NOT_TAKEN:
        return "not taken"
    return next((weight for weight, names in sorted(_WEIGHTS.items(), reverse=True) if parts & names), None)
