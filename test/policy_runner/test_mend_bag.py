"""A cut bag becomes a whole one."""

from __future__ import annotations

from numbered_bag import number_of, write
from rosbags.rosbag2 import Reader

from policy_runner.bag import read_bag
from policy_runner.mend_bag import main


def test_a_cut_bag_can_be_made_one_that_every_tool_reads(tmp_path, capsys):
    whole = write(tmp_path / "bag", 3000, size=1000).read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(whole[: len(whole) // 2])
    assert main([str(cut), str(tmp_path / "new")]) == 0
    with Reader(tmp_path / "new") as reader:
        count = reader.message_count
        assert [number_of(message) for message in read_bag(cut)] == list(range(count))
        times = [time_ns for _, time_ns, _ in reader.messages()]
    assert times == [10**18 + n * 1000 for n in range(count)] and 1400 < count < 1600
    assert capsys.readouterr().out == f"{count} messages in {tmp_path / 'new'}\n"
    assert main([str(cut), str(tmp_path / "new")]) == 1
    assert main([str(tmp_path / "nowhere"), str(tmp_path / "newer")]) == 1
    assert capsys.readouterr().err.count("refused: ") == 2
    assert not (tmp_path / "newer").exists()
