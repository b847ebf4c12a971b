"""Make and publish bundles: export, rebuild, re-index, compact, adopt, back up, import."""
