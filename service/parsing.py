"""Bodies as models of what goes over the wire."""

from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from service.body import read_json
from service.context import settings_of
from service.faults import fault_of
from service.problems import Kind, ProblemError

Body = TypeVar("Body", bound=BaseModel)


async def read_body(request: Request, model: type[Body]) -> Body:
    """The body of a request, which must not have been read. Raises ProblemError that names each fault."""
    settings = settings_of(request)
    return parsed(model, await read_json(request, settings.max_body, settings.patience))


def parsed(model: type[Body], body: object) -> Body:
    """A model from the plain values of a body. Raises ProblemError that names each fault."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        faults = [fault_of(entry, model) for entry in error.errors(include_url=False, include_input=False)]
        raise ProblemError(
            Kind.INVALID, "One value is wrong." if len(faults) == 1 else "Some values are wrong.", faults
        ) from None
