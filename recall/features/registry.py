"""The encoder of each kind of field, by its name in `FIELD_KINDS`."""

from recall.features.bag import BagEncoder
from recall.features.categorical import CategoricalEncoder, HashedEncoder
from recall.features.column import EncoderKind
from recall.features.cross import CrossEncoder
from recall.features.numeric import NumericEncoder

ENCODERS: dict[str, EncoderKind] = {
    "categorical": CategoricalEncoder,
    "bag": BagEncoder,
    "numeric": NumericEncoder,
    "hashed": HashedEncoder,
    "cross": CrossEncoder,
}
