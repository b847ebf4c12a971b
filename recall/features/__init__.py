"""From raw values to weighted feature rows."""
