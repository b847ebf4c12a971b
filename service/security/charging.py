"""What a request costs beyond itself: how many are in it is known only when its body has been read."""

from fastapi import Request

from service.security.guard import Guard


def charge(request: Request, count: int) -> None:
    """Count a request that holds several as so many.

    Raises:
        ProblemError: its key, or whoever asks without one, may not send so many now.
    """
    guard: Guard = request.app.state.guard
    guard.charge(request.scope, count)
