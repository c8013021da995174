"""What a process keeps of freed memory, counted in the page faults of a child that fills and frees again and again."""

from __future__ import annotations

import subprocess
import sys

CHILD = """
import ctypes, resource, sys
from policy_runner.quiet_process import SWITCH_INTERVAL_S, keep_ticks_short

def faults(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        cloud = b"x" * size
        del cloud
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "quiet":
    keep_ticks_short()
    assert sys.getswitchinterval() == SWITCH_INTERVAL_S
print(faults(40_000_000))
"""


def page_faults(kind):
    ended = subprocess.run(
        [sys.executable, "-c", CHILD, kind], capture_output=True, text=True, check=True, timeout=60
    )
    return int(ended.stdout)


def test_memory_that_is_freed_is_there_for_the_next_cloud():
    pages = 40_000_000 // 4096
    assert page_faults("as it starts") > 10 * pages
    assert page_faults("quiet") < 2 * pages
