"""Keep the old name of `recall.data.incremental` for one minor version."""

from recall.data.incremental import load_additions as load_additions
