import os
import subprocess
import sys

import numba
import torch

from recall.training.kernels.choice import load_kernels


def test_numba_runs_where_it_is_installed():
    assert load_kernels().name == f"numba {numba.__version__}"


def test_torch_runs_where_numba_is_missing():
    hidden = "import sys; sys.modules['numba'] = None"
    code = f"{hidden}; from recall.training.kernels.choice import load_kernels; print(load_kernels().name)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == f"torch {torch.__version__}"


def test_compiled_code_needs_no_folder_of_its_own():
    """An install that cannot be written to, by a user without a home: numba finds no place for a cache."""
    code = "from recall.training.kernels.choice import load_kernels; print(load_kernels().name)"
    places = {**os.environ, "NUMBA_CACHE_LOCATOR_CLASSES": "IPythonCacheLocator"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=places)
    assert "numba" in result.stdout
