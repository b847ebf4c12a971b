"""The paths that are answered: one module for each subject, which holds what goes over the wire for it too."""

from fastapi import FastAPI
from pydantic import BaseModel

from service.routes.batch import BatchRequest, add_batch_routes
from service.routes.cached import add_cached_routes
from service.routes.catalogue import add_catalogue_routes
from service.routes.explain import ExplainRequest, WhyNotRequest, add_explain_routes
from service.routes.health import add_health_routes
from service.routes.info import add_info_routes
from service.routes.interactions import Interactions, add_interaction_routes
from service.routes.items import ItemsUpsert, add_item_routes
from service.routes.kserve import add_kserve_routes
from service.routes.metrics import add_metric_routes
from service.routes.models import add_model_routes
from service.routes.recommend import add_recommend_routes
from service.routes.score import ScoreRequest, UserVectorRequest, add_score_routes
from service.routes.similar import SimilarRequest, add_similar_routes
from service.routes.users import UserPut, UsersUpsert, add_user_routes
from service.wire import RecommendRequest

BODIES: tuple[type[BaseModel], ...] = (
    *(RecommendRequest, BatchRequest, ExplainRequest, WhyNotRequest, ScoreRequest, UserVectorRequest, SimilarRequest),
    *(ItemsUpsert, UsersUpsert, UserPut, Interactions),
)
"""What requests may hold, for the OpenAPI document."""


def add_routes(app: FastAPI) -> None:
    """Answer all paths but the documentation."""
    for add in (
        *(add_recommend_routes, add_batch_routes, add_cached_routes, add_score_routes, add_explain_routes),
        *(add_catalogue_routes, add_similar_routes, add_item_routes, add_user_routes, add_interaction_routes),
        *(add_model_routes, add_metric_routes, add_info_routes, add_health_routes, add_kserve_routes),
    ):
        add(app)
