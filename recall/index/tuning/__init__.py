"""Choose an index by measurement: trials, confidence bounds, and the user vectors they are taken on."""
