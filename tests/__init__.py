"""Tests of recall and service."""

import os

# Waiting threads of OpenMP give their core to others. With more processes than cores, spinning ones doubled the CPU time of the
# tests. Set here, before anything imports torch, and inherited by the commands that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
