"""What a soak says of growth, held against series that are known and a process that is."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from bench.soak import Sample, growth, sample, summary, windows


def test_what_happens_while_it_warms_up_is_not_counted():
    values = [float(min(second, 300)) for second in range(900)]  # grows for a third of the time
    assert growth(values) == pytest.approx(0.0, abs=1e-9)
    assert (windows(values) == 300.0).all()


def test_growth_is_that_of_the_line_through_the_windows_and_peaks_are_none():
    seconds = np.arange(900.0)
    values = 100.0 + seconds / 60.0  # 1 MB a minute, for the ten minutes that are counted
    values[::7] += 50.0
    assert growth(values.tolist()) == pytest.approx(10.0, abs=0.3)


ONE_MORE_OF_EACH = """
import sys, threading
print("ready", flush=True)
sys.stdin.readline()
threading.Thread(target=threading.Event().wait, daemon=True).start()
file = open(sys.argv[1], "w")
print("more", flush=True)
sys.stdin.readline()
"""


def test_a_sample_knows_the_descriptors_and_threads_of_a_process(tmp_path):
    words = [sys.executable, "-c", ONE_MORE_OF_EACH, str(tmp_path / "file")]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == "ready\n"
        before = sample(process.pid, 1.0)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "more\n"
        during = sample(process.pid, 2.0)
        process.communicate("\n")
    assert during.descriptors == before.descriptors + 1
    assert during.threads == before.threads + 1
    assert before.memory_mb > 5.0


def test_the_summary_tells_slopes_by_the_hour():
    samples = [
        Sample(time_s=float(second), memory_mb=100.0 + second / 3600.0, descriptors=20, threads=5)
        for second in range(1800)
    ]
    said = [
        {"tick_p99_ms": "2.0" if second < 900 else "4.0", "heap_in_use_mb": f"{40.0 + second / 1800.0:.4f}"}
        for second in range(1800)
    ]
    said += [{}]
    found = {
        "seconds": 1800.0,
        "published": 90_000,
        "events": {"stopped": 3, "disarmed": 4},
        "diagnostics": said,
    }
    row = summary(samples, found)
    assert row["memory_growth_mb"] == pytest.approx(
        1.0 / 3.0, rel=0.05
    )  # in the twenty minutes that are counted
    assert row["in_use_mb_per_h"] == pytest.approx(2.0, rel=0.05)
    assert (row["new_descriptors"], row["new_threads"], row["events"]) == (0, 0, 7)
    assert (row["p99_first_quarter_ms"], row["p99_last_quarter_ms"]) == (2.0, 4.0)
