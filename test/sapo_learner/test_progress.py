import io
import re

from sapo_learner.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def metrics(epoch: int, episode_return: float = float("nan")) -> dict[str, float]:
    return {"env_steps": 1000.0 * epoch, "return": episode_return, "step_reward": 0.125}


def test_a_log_file_gets_whole_lines_with_return_speed_and_time_left():
    stream = io.StringIO()
    progress = Progress(3, stream=stream, line_every_s=0.0)
    progress.update(1, metrics(1))
    progress.update(2, metrics(2, -3.456))
    progress.update(3, metrics(3, 7.0))
    progress.close()
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("epoch 1/3, reward per step 0.125")
    assert re.fullmatch(r"epoch 2/3, return -3.46, \d+ env-steps/s, [\d:]+ left", lines[1])
    assert re.fullmatch(r"epoch 3/3, return 7.00, \d+ env-steps/s, 00:00 left", lines[2])


def test_lines_are_rare_and_the_first_and_last_epoch_always_have_one():
    stream = io.StringIO()
    progress = Progress(100, epoch=10, stream=stream, line_every_s=3600.0)
    for epoch in range(11, 101):
        progress.update(epoch, metrics(epoch))
    progress.close()
    assert [line.split(",")[0] for line in stream.getvalue().splitlines()] == [
        "epoch 11/100",
        "epoch 100/100",
    ]


def test_a_terminal_gets_a_bar():
    stream = Terminal()
    progress = Progress(4, epoch=2, stream=stream)
    progress.update(3, metrics(3, 1.0))
    progress.update(4, metrics(4, 2.0))
    progress.close()
    last = stream.getvalue().split("\r")[-1]
    assert "4/4" in last and "100%" in last and "return 2.00" in last and "env-steps/s" in last
