"""How much memory of the C heap is in use: what grows where something is never freed, and nothing else does.

What a process holds by the system's count (RSS) says less: freed memory is kept (`quiet_process`), so that only ever
grows.
"""

from __future__ import annotations

import ctypes


class _MallInfo2(ctypes.Structure):
    """`struct mallinfo2` of <malloc.h>."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )


def heap_in_use_bytes() -> int | None:
    """Return what is allocated now, all threads' pools and large blocks together; None where glibc does not tell."""
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None)  # glibc 2.33
    if ask is None:
        return None
    ask.restype = _MallInfo2
    info = ask()
    return info.uordblks + info.hblkhd
