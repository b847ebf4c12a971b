"""SQLite files that several processes write, where what was acknowledged is on the disk."""
