"""The example task of the guide: it pushes, and its gradient is the slope of what it shows."""

import re
from pathlib import Path

import torch

import examples.push_jelly
import rewarped_sim
from examples.push_jelly import PushJelly

STEPS = 30


def total(env, start, speed):
    env.load_state_dict(start)
    return sum(env.step(speed).reward.sum() for _ in range(STEPS))


def test_a_faster_ball_pushes_the_jelly_further_as_the_gradient_says():
    env = rewarped_sim.make("push_jelly", num_envs=1, horizon=STEPS)
    assert isinstance(env.task, PushJelly)
    env.reset()
    start = env.state_dict()
    speed = torch.tensor([[0.6]], requires_grad=True)
    (slope,) = torch.autograd.grad(total(env, start, speed), speed)
    with torch.no_grad():
        ahead, behind = (total(env, start, speed + step) for step in (0.01, -0.01))
    assert ahead > behind
    assert abs((ahead - behind) / 0.02 - slope) < 0.02 * slope
    assert env.nonfinite.sum() == 0


def test_the_guide_quotes_the_example_as_it_is():
    guide = (Path(__file__).parents[2] / "docs" / "mpm.md").read_text()
    source = {line.strip() for line in Path(examples.push_jelly.__file__).read_text().splitlines()}
    quoted = [
        line.strip()
        for code in re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
        for line in code.splitlines()
    ]
    assert len(quoted) > 30
    assert set(quoted) <= source, set(quoted) - source
