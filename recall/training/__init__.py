"""Learning a model from a data set. Needs torch; serving never imports it."""
