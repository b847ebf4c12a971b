"""Live changes of items and users: SQLite files that several processes write, and Redis."""
