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
    """An install that cannot be written to, by a user without a home."""
    code = (
        "from numba.core.caching import _CacheImpl; _CacheImpl._locator_classes = []\n"
        "import numpy as np\n"
        "from recall.training.kernels.compiled import CompiledKernels\n"
        "out = np.zeros((1, 3), dtype=np.float32)\n"
        "one = np.ones(3, dtype=np.float32)\n"
        "CompiledKernels().shade(one[:1], one, one, one[None], out)\n"
        "print(out.sum())\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(result.stdout) == 6.0
