import os
import subprocess
import sys


def test_compiled_code_needs_no_writable_folder():
    """With a read-only install and no home folder, numba has no place for its cache."""
    code = (
        "import numpy as np; from recall.training.als import linear_algebra;"
        "one = np.ones((2, 3), dtype=np.float32); print(linear_algebra.table_dot(one, one))"
    )
    places = {**os.environ, "NUMBA_CACHE_LOCATOR_CLASSES": "IPythonCacheLocator"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=places)
    assert result.stdout == "6.0\n"
