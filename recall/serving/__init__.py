"""Answer requests in process from a published bundle: filters, search, re-ranking, explanations. No torch."""
