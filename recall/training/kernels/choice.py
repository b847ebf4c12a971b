"""Which implementation of the inner loops runs."""

from recall.training.kernels.contract import Kernels


def load_kernels() -> Kernels:
    """Compiled kernels where numba is installed, torch's own elsewhere; `name` says which."""
    try:
        from recall.training.kernels.compiled import CompiledKernels
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        from recall.training.kernels.portable import PortableKernels

        return PortableKernels()
    return CompiledKernels()
