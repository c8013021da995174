import io
import time

from sapo_learner.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def metrics(epoch: int, episode_return: float = float("nan")) -> dict[str, float]:
    return {"env_steps": 1000.0 * epoch, "return": episode_return, "step_reward": 0.125}


def test_a_log_file_gets_whole_lines_with_return_speed_and_time_left(monkeypatch):
    clock = iter([100.0, 105.0, 110.0, 115.0])  # start, then 5 s and 1000 env steps for each epoch
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    progress = Progress(12, epoch=9, stream=stream, line_every_s=0.0)
    progress.update(10, metrics(10))
    progress.update(11, metrics(11, -3.456))
    progress.update(12, metrics(12, 7.0))
    progress.close()
    assert stream.getvalue().splitlines() == [
        "epoch 10/12, reward per step 0.125, 00:10 left",
        "epoch 11/12, return -3.46, 200 env-steps/s, 00:05 left",
        "epoch 12/12, return 7.00, 200 env-steps/s, 00:00 left",
    ]


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


def test_a_log_that_cannot_be_written_ends_no_training():
    class Full(io.StringIO):
        def write(self, text):
            raise OSError("File too large")

    Progress(1, stream=Full()).update(1, {"env_steps": 1.0, "return": 1.0, "step_reward": 1.0})
