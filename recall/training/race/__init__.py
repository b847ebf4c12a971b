"""Race of known recipes on a validation part, for `train.objective = "auto"`."""
