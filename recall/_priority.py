"""Priority of background threads."""

import os
import sys
import threading

_NICENESS = 5  # with a greater one, it might get no processor while it holds the interpreter's lock


def yield_to_others() -> None:
    """Lower the priority of the calling thread, so that requests come first.

    Only Linux has priorities of single threads; elsewhere nothing changes, as where the system refuses it.
    """
    if sys.platform == "linux":
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        except PermissionError:  # the process runs at a lower priority already, which it may not raise
            return
