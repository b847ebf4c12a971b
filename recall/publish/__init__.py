"""Produce and publish bundles: export, rebuild, reindex, compact, adopt, import."""
