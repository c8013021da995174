import os
import resource

import pytest

from sapo_learner.atomic_file import TEMPORARY, clear_leftovers, write_atomically


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_and_replaced_as_a_whole(tmp_path):
    for content in (b"first, and the longer one", b"second"):
        write_atomically(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content
    assert names(tmp_path) == ["file"]


def test_a_disk_that_fills_up_on_the_way_leaves_the_old_file_and_nothing_else(tmp_path):
    write_atomically(tmp_path / "file", b"old")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_atomically(tmp_path / "file", bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_what_a_killed_process_left_is_known_by_its_name_and_cleared(tmp_path, monkeypatch):
    child = os.fork()
    if child == 0:
        os.replace = lambda *_: os._exit(0)  # as kill -9 just before the file gets its name
        write_atomically(tmp_path / "file", b"new")
    os.waitpid(child, 0)
    assert names(tmp_path) == [f"{TEMPORARY}file"]
    clear_leftovers(tmp_path)
    assert names(tmp_path) == []
