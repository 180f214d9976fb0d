# SPDX-License-Identifier: Apache-2.0
"""Threads, and what runs."""

from . import _core


def set_threads(n):
    """Computes with n threads from now on; 0: with all cores that this process may use.

    At first it is the environment's ATTN_THREADS, else all cores. Calls that are under way in other threads of the program end
    with the threads they began with.
    """
    _core.set_threads(n)


def get_threads():
    """The number of threads that calls compute with: fewer than asked for where the system starts no more."""
    return _core.get_threads()


def info():
    """What runs, as a dict: "version", "isa" (instruction set: "avx512", "avx2", "scalar", ...), "threads", "compiler"."""
    return _core.info()
