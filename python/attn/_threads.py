# SPDX-License-Identifier: Apache-2.0
"""Threads, and what runs."""

import os

from . import _core

_chosen = "ATTN_THREADS" in os.environ
_followed = 0


def set_threads(n):
    """Computes with n threads from now on; 0: with all cores that this process may use.

    At first it is the environment's ATTN_THREADS, else all cores; calls of attn.torch compute with as many as torch does
    (torch.set_num_threads) until this function or ATTN_THREADS says otherwise. Calls that are under way in other threads of the program end
    with the threads they began with.
    """
    global _chosen
    _core.set_threads(n)
    _chosen = True


def follow(n):
    """Computes with n threads, as another library does, unless the user has chosen."""
    global _followed
    if n != _followed and not _chosen:
        _followed = n
        _core.set_threads(n)


def get_threads():
    """The number of threads that calls compute with: fewer than asked for where the system starts no more."""
    return _core.get_threads()


def info():
    """What runs, as a dict: "version", "isa" (instruction set: "avx512", "avx2", "scalar", ...), "threads", "compiler"."""
    return _core.info()
