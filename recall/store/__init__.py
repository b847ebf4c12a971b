"""Live changes of items and users: SQLite files with many writers, and Redis."""
