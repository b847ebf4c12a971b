"""Draft a configuration for existing tables, with the reason of each guess."""
