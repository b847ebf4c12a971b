"""Users: what is known of them, and changes, which the next request uses."""

from fastapi import APIRouter, Request

from recall import Recommender, StoreDownError, User
from recall.store.group_commit import Receipt
from recall.store.users import profiles
from service.dependencies import (
    ADMIN,
    BODY,
    CHANGE,
    IdempotencyKey,
    PageQuery,
    PathId,
    charge,
    live_of,
    request_id_of,
    token_after,
)
from service.errors import Kind, ProblemError, problems
from service.schemas import (
    Degradation,
    Interactions,
    KnownUser,
    Taken,
    UserEntry,
    UserPut,
    UsersChanged,
    UsersDelete,
    UsersPage,
    UsersUpsert,
)
from service.tokens import digest

reads, changes = APIRouter(tags=["users"], **ADMIN), APIRouter(tags=["users"], **CHANGE)


@reads.get("/v1/users")
async def list_users(request: Request, page: PageQuery) -> UsersPage:
    """Return the known users in order of their ids.

    A user who is known throughout is on exactly one page.
    """
    count = page.count
    found, bundle = await live_of(request).ask(
        lambda recommender: (recommender.users.ids(page.after, count + 1), recommender.bundle.manifest.version)
    )
    return UsersPage(
        users=[UserEntry(user_id=user_id) for user_id in found[:count]],
        next_page_token=token_after(found[count - 1] if len(found) > count else None),
        bundle=bundle,
        request_id=request_id_of(request),
    )


@reads.get("/v1/users/{user_id:path}", responses=problems(texts={404: "No such user is known."}))
async def get_user(request: Request, user_id: PathId) -> KnownUser:
    """Return what is known of a user, from the bundle and from later changes."""
    live = live_of(request)
    found, bundle = await live.ask(
        lambda recommender: (recommender.users.known([user_id])[user_id], recommender.bundle.manifest.version)
    )
    if found.record is None:
        if found.error:  # it is not known whether there is such a user
            raise StoreDownError(found.error)
        raise ProblemError(Kind.NO_USER, "No such user is known.")
    return KnownUser(
        user_id=user_id,
        features=dict(found.record.features),
        history=list(found.record.history),
        seen=list(found.record.seen),
        bundle=bundle,
        degraded=[
            *([Degradation(part="users", reason=found.error)] if found.error else []),
            *(Degradation(part=one.part, reason=one.reason) for one in live.degraded),
        ],
        request_id=request_id_of(request),
    )


@changes.post("/v1/users:upsert", responses=BODY)
async def upsert_users(request: Request, body: UsersUpsert, key: IdempotencyKey = None) -> UsersChanged:
    """Change parts of users, or add new ones, without training.

    The next request uses the change.
    """
    charge(request, len(body.users))
    given = [User(one.user_id, one.features, one.history, one.seen) for one in body.users]
    receipt = await live_of(request).change_users(lambda recommender: recommender.users.upsert(given, key))
    return _changed(request, receipt)


@changes.post("/v1/users:delete", responses=BODY)
async def delete_users(request: Request, body: UsersDelete, key: IdempotencyKey = None) -> UsersChanged:
    """Delete users, including those of the bundle; unknown ones are ignored."""
    charge(request, len(body.user_ids))
    receipt = await live_of(request).change_users(lambda recommender: recommender.users.delete(body.user_ids, key))
    return _changed(request, receipt)


@changes.put("/v1/users/{user_id:path}", responses=BODY)
async def put_user(request: Request, user_id: PathId, body: UserPut, key: IdempotencyKey = None) -> UsersChanged:
    """Replace a whole user, without training. The next request uses the change."""
    given = User(user_id, body.features, body.history, body.seen)
    receipt = await live_of(request).change_users(lambda recommender: recommender.users.put(given, key))
    return _changed(request, receipt)


@changes.delete("/v1/users/{user_id:path}")
async def delete_user(request: Request, user_id: PathId, key: IdempotencyKey = None) -> UsersChanged:
    """Delete a user, including one of the bundle; an unknown one is ignored."""
    receipt = await live_of(request).change_users(lambda recommender: recommender.users.delete([user_id], key))
    return _changed(request, receipt)


@changes.post("/v1/interactions", responses={**BODY, **problems(410)})
async def post_interactions(request: Request, body: Interactions, key: IdempotencyKey = None) -> Taken:
    """Add interactions to the histories and seen items of users.

    The next request includes them.
    """
    charge(request, len(body.interactions))
    live = live_of(request)
    lists = [
        (one.item_id, live.tokens.read_list(one.recommendation_id, f"/interactions/{place}/recommendation_id"))
        for place, one in enumerate(body.interactions)
        if one.recommendation_id is not None
    ]
    given = [profiles.Interaction(one.user_id, one.item_id, one.time) for one in body.interactions]

    def take(recommender: Recommender) -> Taken:
        items = list(dict.fromkeys(one.item_id for one in given))
        receipt = recommender.users.log_interactions(given, key)
        rows = recommender.items.current().rows(items)
        unknown = [item_id for item_id, row in zip(items, rows.tolist(), strict=True) if row < 0]
        version, request_id = recommender.bundle.manifest.version, request_id_of(request)
        return Taken(change=receipt.sequence, known=receipt.known, unknown=unknown, bundle=version, request_id=request_id)

    taken = await live.change_users(take)
    for item_id, of in lists:
        live.meters.attributed(of.scenario, of.bundle, listed=digest(item_id) in of.listed)
    return taken


def _changed(request: Request, receipt: Receipt) -> UsersChanged:
    return UsersChanged(
        change=receipt.sequence,
        known=receipt.known,
        warnings=list(receipt.warnings),
        request_id=request_id_of(request),
    )
