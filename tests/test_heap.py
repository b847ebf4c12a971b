import os
import platform
import subprocess
import sys

import pytest

from recall._heap import return_memory_when_freed

LARGE_BLOCK = """
import ctypes
from recall._heap import return_memory_when_freed

class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
        ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]

library = ctypes.CDLL(None)
library.mallinfo2.restype, library.malloc.restype, library.free.argtypes = Mallinfo2, ctypes.c_void_p, [ctypes.c_void_p]
return_memory_when_freed()
size, mapped = 24 << 20, []
for _ in range(3):  # after it has freed a block, glibc keeps blocks of this size by default
    block = library.malloc(ctypes.c_size_t(size))
    mapped.append(library.mallinfo2().hblkhd >= size)
    library.free(block)
print(mapped)
"""


def run_python(code: str, **environment: str) -> str:
    whole = os.environ | environment
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=whole).stdout.strip()


def test_polars_is_told_to_return_freed_columns_unless_the_environment_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_RJEM_MALLOC_CONF", "dirty_decay_ms:5")
    return_memory_when_freed()
    assert os.environ["_RJEM_MALLOC_CONF"] == "dirty_decay_ms:5"
    monkeypatch.delenv("_RJEM_MALLOC_CONF")
    return_memory_when_freed()
    assert os.environ["_RJEM_MALLOC_CONF"] == "dirty_decay_ms:100,muzzy_decay_ms:0"


def test_the_commands_of_training_do_not_import_polars_before_they_set_its_memory() -> None:
    assert run_python("import sys, recall.cli.train; print('polars' in sys.modules)") == "False"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have their own allocators")
def test_a_large_block_is_mapped_by_itself_so_that_it_is_returned_when_freed() -> None:
    assert run_python(LARGE_BLOCK) == "[True, True, True]"
    assert run_python(LARGE_BLOCK.replace("\nreturn_memory_when_freed()\n", "\n")) != "[True, True, True]"
    assert run_python(LARGE_BLOCK, MALLOC_MMAP_THRESHOLD_="33554432") == "[False, False, False]"
