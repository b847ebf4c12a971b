"""The form of a model."""

from recall.features.layout import Fields
from recall.models.torch.base import Model
from recall.models.torch.ffm import FieldAwareFM
from recall.models.torch.fm import FactorizationMachine
from recall.models.torch.fwfm import FieldWeightedFM
from recall.training.als.forms.base import Form
from recall.training.als.forms.ffm import FFMForm
from recall.training.als.forms.fm import FMForm
from recall.training.als.forms.fwfm import FwFMForm


def form_of(model: Model, users: Fields | None, items: Fields | None) -> Form:
    """How `model` stands in the square loss; the fields of both sides may be left out for a model without fields.

    Raises:
        TypeError: no form is known for this kind of model, or its fields are left out.
    """
    if isinstance(model, FactorizationMachine):
        return FMForm(model)
    if users is not None and items is not None:
        if isinstance(model, FieldWeightedFM):
            return FwFMForm(model, users, items)
        if isinstance(model, FieldAwareFM):
            return FFMForm(model, users, items)
    raise TypeError(f"the square loss has no form for {type(model).__name__} with fields {users} and {items}")
