"""Which arrays the tables of each kind of model are, and tables from such arrays."""

from collections.abc import Mapping
from dataclasses import dataclass

from recall._arrays import Float32
from recall.features.csr import FeatureLayout
from recall.models.serving.base import Kind, ServingModel
from recall.models.serving.cosine import CosineTables
from recall.models.serving.ffm import FFMTables
from recall.models.serving.fm import FMTables, SumTables
from recall.models.serving.fwfm import FwFMTables
from recall.models.serving.popularity import PopularityFactor, PopularityTables


@dataclass(frozen=True, slots=True)
class Layout:
    """What, beside the fields of both sides, decides the shapes of a model's tables.

    Attributes:
        kind: of the model.
        k: number of factors of one embedding.
        rank: parts of a folded model's vectors; None for a kind that is not folded.
        cosine: whether vectors are scaled to unit length.
        popularity: whether there is a popularity factor.
    """

    kind: Kind
    k: int
    rank: int | None
    cosine: bool
    popularity: bool = False

    @staticmethod
    def of(tables: ServingModel) -> "Layout":
        """Return the layout of a model."""
        plain = unwrapped(tables)
        return Layout(
            tables.kind,
            tables.k,
            plain.rank if isinstance(plain, FwFMTables) else None,
            cosine=isinstance(tables.of if isinstance(tables, PopularityTables) else tables, CosineTables),
            popularity=isinstance(tables, PopularityTables),
        )

    def shapes(self, users: FeatureLayout, items: FeatureLayout) -> dict[str, tuple[int, ...]]:
        """Return the shape of every array by name.

        Args:
            users: the user fields.
            items: the item fields.
        """
        n_fields = len(users) + len(items)
        embedding = (n_fields, self.k) if self.kind == "ffm" else (self.k,)
        shapes: dict[str, tuple[int, ...]] = {
            "user_factors": (users.n_features, *embedding),
            "user_weights": (users.n_features,),
            "item_factors": (items.n_features, *embedding),
            "item_weights": (items.n_features,),
            "bias": (1,),
        }
        if self.rank is not None:
            shapes |= {
                "field_weights": (n_fields, n_fields),
                "fold_users": (len(users), self.rank),
                "fold_items": (len(items), self.rank),
            }
        if self.popularity:
            shapes |= {
                "user_popularity": (users.n_features,),
                "item_popularity": (items.n_features,),
                "item_levels": (items.n_features,),
            }
        return shapes

    def tables(self, arrays: Mapping[str, Float32], users: FeatureLayout, items: FeatureLayout) -> ServingModel:
        """Build a model from arrays of these shapes.

        Args:
            arrays: by name.
            users: the user fields.
            items: the item fields.
        """
        common = (
            users,
            items,
            arrays["user_factors"],
            arrays["user_weights"],
            arrays["item_factors"],
            arrays["item_weights"],
            float(arrays["bias"][0]),
        )
        tables: ServingModel
        match self.kind:
            case "fm" | "lr":
                tables = FMTables(*common)
            case "fwfm":
                tables = FwFMTables(*common, arrays["field_weights"], arrays["fold_users"], arrays["fold_items"])
            case "ffm":
                tables = FFMTables(*common)
            case "sums":
                tables = SumTables(*common)
        if self.cosine:
            tables = CosineTables(tables)
        if self.popularity:
            factor = PopularityFactor(arrays["user_popularity"], arrays["item_popularity"], arrays["item_levels"])
            tables = PopularityTables(tables, users, items, factor)
        return tables


def unwrapped(tables: ServingModel) -> ServingModel:
    """Return a model without popularity factor and without scaling to unit length."""
    while isinstance(tables, PopularityTables | CosineTables):
        tables = tables.of
    return tables
