"""Choose an index by measurement: trials, confidence bounds, query splits."""
