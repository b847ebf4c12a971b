"""Answer requests in process: filters, search, re-ranking, explanations. No torch."""
