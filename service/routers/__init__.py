"""All routers, one module for each subject."""

from service.routers import explanations, items, models, recommendations, system, users

ROUTERS = (
    *(recommendations.router, explanations.router, items.searches, items.reads, items.changes, users.reads, users.changes),
    *(recommendations.scenarios, recommendations.scenario_searches),
    *(models.reads, models.changes, system.router, system.health),
)
