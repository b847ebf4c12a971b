"""Looking for the settings that suit some data, on a part of the training data alone."""
