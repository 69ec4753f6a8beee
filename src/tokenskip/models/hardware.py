"""What the machine has, asked once: cores, bf16 units, and glibc set to keep memory.

Nothing here is imported before it is needed: torch answers for the CPU.
"""

from __future__ import annotations

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h
_SETTINGS = ((_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 1 << 26), (_M_MMAP_MAX, 0))
"""Of `mallopt`. No mapping at all, since glibc takes a threshold of at most 32 MiB, and logits are larger."""
NARROW = 256
"""Width of a model below which bf16 does not pay on a CPU: converting costs more than the products save."""


def keep_memory() -> bool:
    """Whether glibc now keeps freed memory for the next tensor; False where the C library is another.

    By default it hands every large tensor back to the system at once, and getting it again, zeroed page by page, took
    a fifth of a training's CPU time. Set from inside, so that it also holds without a Makefile.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # musl has none
        return False
    taken = [mallopt(parameter, value) for parameter, value in _SETTINGS]
    return all(taken)


def set_threads(width: int) -> None:
    """Let torch use one thread for a narrow model's products and all cores for others, unless OMP_NUM_THREADS is set.

    Threads that share small products wait for each other: beside another busy process a step of the embedded model took
    ten times as long with two.
    """
    import torch

    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(1 if width < NARROW else cores())


def has_bf16(device: str) -> bool:
    """Whether bf16 is computed in hardware: AMX or AVX-512 units of a CPU, or an accelerator that says so."""
    import torch

    if device != "cpu":
        return device != "cuda" or bool(torch.cuda.is_bf16_supported(including_emulation=False))
    named = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in named)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
