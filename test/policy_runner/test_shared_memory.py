import fcntl

from policy_runner.shared_memory import abandoned_segments, free_bytes


def test_a_segment_is_abandoned_once_nobody_holds_its_lock(tmp_path):
    names = ("fastdds_0123456789abcdef", "fastdds_fedcba9876543210")
    for name in names:
        (tmp_path / name).write_bytes(bytes(8))
        (tmp_path / f"{name}_el").touch()
    with (tmp_path / f"{names[0]}_el").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert abandoned_segments(tmp_path) == [tmp_path / names[1]]
    assert abandoned_segments(tmp_path) == [tmp_path / name for name in names]


def test_ports_strangers_and_locks_alone_are_no_segments(tmp_path):
    for name in ("fastdds_port7001", "fastdds_port7001_el", "sem.fastdds_port7001_mutex", "others"):
        (tmp_path / name).touch()
    (tmp_path / "fastdds_0123456789abcdef_el").touch()
    assert abandoned_segments(tmp_path) == []


def test_looking_changes_nothing(tmp_path):
    for name in ("fastdds_0123456789abcdef", "fastdds_0123456789abcdef_el"):
        (tmp_path / name).touch()
    assert abandoned_segments(tmp_path) == abandoned_segments(tmp_path) != []
    with (tmp_path / "fastdds_0123456789abcdef_el").open() as owner:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where the lock is not let go


def test_free_memory_is_that_of_the_folder(tmp_path):
    assert free_bytes(tmp_path) > 0
