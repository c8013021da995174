"""Telling people why the first start takes so long: kernels are compiled once and then taken from Warp's cache."""

import glob
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import warp as wp

log = logging.getLogger(__name__)


@contextmanager
def compilation_logged() -> Iterator[None]:
    """Log one line if kernels are compiled in this block: how many, and how long the block took.

    Another process that compiles into the same cache at the same time is counted, too.
    Raises OSError where there can be no cache, as in a home folder that cannot be written.
    """
    try:
        wp.init()  # decides where the cache is
    except OSError as error:
        remedy = "set WARP_CACHE_PATH to a folder that can be written"
        raise OSError(f"the cache of compiled kernels cannot be made: {error}; {remedy}") from error
    before, start = _cached_kernels(), time.monotonic()
    yield
    compiled, seconds = _cached_kernels() - before, time.monotonic() - start
    if compiled > 0:
        log.info(
            "compiled %d kernels in %.0f s; the next start takes them from %s",
            compiled,
            seconds,
            wp.config.kernel_cache_dir,
        )


def _cached_kernels() -> int:
    """Object files in the cache: .o for CPUs, .cubin or .ptx for GPUs."""
    # unlike Path.glob, it passes over a folder that another process moves meanwhile
    found = glob.iglob(os.path.join(wp.config.kernel_cache_dir, "wp_*", "*"))
    return sum(path.endswith((".o", ".cubin", ".ptx")) for path in found)
