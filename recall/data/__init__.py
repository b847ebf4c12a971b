"""From files to sorted, split interactions."""
