"""The first start says that kernels were compiled; later ones, and starts that fail, do not."""

import logging
import re
import threading
from pathlib import Path

import pytest
import warp as wp

from rewarped_sim.engine.compilation import compilation_logged


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    wp.init()
    monkeypatch.setattr(wp.config, "kernel_cache_dir", str(tmp_path))
    return str(tmp_path)


def fresh_kernel():
    @wp.kernel(module="unique", enable_backward=False)
    def count_up(out: wp.array(dtype=int)):
        out[wp.tid()] = wp.tid() + 1

    return count_up


def launch(kernel):
    wp.launch(kernel, 3, inputs=[wp.zeros(3, dtype=int, device="cpu")], device="cpu")


def test_a_compilation_is_one_line_and_a_cached_kernel_none(empty_cache, caplog):
    caplog.set_level(logging.INFO, logger="rewarped_sim")
    kernel = fresh_kernel()
    with compilation_logged():
        launch(kernel)
    (line,) = caplog.messages
    assert re.match(r"compiled 1 kernels in \d+ s; the next start takes them from ", line)
    assert line.endswith(empty_cache)
    kernel.module.unload()
    with compilation_logged():
        launch(kernel)
    assert len(caplog.messages) == 1


def test_what_goes_wrong_in_the_block_comes_out_of_it(empty_cache, caplog):
    caplog.set_level(logging.INFO, logger="rewarped_sim")
    with pytest.raises(ZeroDivisionError), compilation_logged():
        launch(fresh_kernel())
        _ = 1 / 0
    assert not caplog.messages


def test_another_process_that_compiles_meanwhile_does_no_harm(empty_cache):
    built, done = [Path(empty_cache) / f"wp_grid_{index}_p2_t3" for index in range(20)], threading.Event()

    def compile_and_move():  # as Warp does: it builds in a folder of its process, and moves that into place
        while not done.is_set():
            for folder in built:
                folder.mkdir()
            for folder in built:
                folder.rmdir()

    other = threading.Thread(target=compile_and_move)
    other.start()
    try:
        for _ in range(300):
            with compilation_logged():
                pass
    finally:
        done.set()
        other.join()
