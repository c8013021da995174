"""What a run shows for itself at the end: a comparison with do-nothing, a video of both, a learning curve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from policy_runner.contract import PolicyContract
from rewarped_sim.env import Env
from rewarped_sim.video import Recording
from rewarped_sim.watched_env import WatchedEnv
from sapo_learner.evaluate import EvalResult, Zero, evaluate
from sapo_learner.metrics import read_metrics
from sapo_learner.policy import Policy
from sapo_learner.trajopt import OpenLoop
from sapo_learner.vec_env import Obs, StepResult


class Stopped(Exception):  # noqa: N818 (asked for by the caller, so not an error)
    """The evaluation was ended before it had a result."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The policy's mean action against doing nothing, on the same starts."""

    policy: EvalResult
    do_nothing: EvalResult
    recordings: tuple[Recording, Recording]
    """First episode of the first env under each."""

    def line(self, task: str) -> str:
        """Say it in one line."""
        episodes = self.policy.returns.numel()
        return (
            f"{task}: policy {self.policy.text(1)}, do-nothing {self.do_nothing.text(1)} "
            f"({episodes} episodes each, same starts, 95 % confidence)"
        )


def compare_with_do_nothing(
    env: Env, policy: Policy, *, episodes_per_env: int, should_stop: Callable[[], bool]
) -> Comparison:
    """Evaluate both on the same starts. Raises Stopped when `should_stop` turns true meanwhile."""
    results, recordings = [], []
    for title, actor in (("trained policy", policy), ("do-nothing", Zero(env.action_dim))):
        recorder = _Recorder(title, should_stop)
        results.append(evaluate(WatchedEnv(env, recorder), actor, episodes_per_env=episodes_per_env))
        recordings.append(recorder.recording)
    return Comparison(policy=results[0], do_nothing=results[1], recordings=(recordings[0], recordings[1]))


def draw_learning_curve(path: Path, metrics_file: Path, title: str, comparison: Comparison | None) -> None:
    """Draw the return over env steps, from the metrics that the run logged."""
    from rewarped_sim.plot import write_learning_curve  # matplotlib would be a sixth of every start

    rows = read_metrics(metrics_file)
    write_learning_curve(
        path,
        env_steps=[row["env_steps"] for row in rows],
        returns=[row["return"] for row in rows],
        do_nothing=comparison.do_nothing.mean if comparison else None,
        final=comparison.policy.mean if comparison else None,
        title=title,
    )


MAX_STEPS_BETWEEN_SCENES = 4
"""More would look jerky: a robot takes a stride in some twenty control steps."""


class _Recorder:
    """Keeps scenes of the first env's first episode, every few steps: all of it, or of a long one the beginning."""

    def __init__(self, title: str, should_stop: Callable[[], bool], max_scenes: int = 75) -> None:
        self.recording = Recording(title=title)
        self._should_stop = should_stop
        self._max_scenes = max_scenes
        self._steps = 0
        self._return = 0.0
        self._done = False

    def __call__(self, env: Env, step: StepResult | None) -> None:
        if self._should_stop():
            raise Stopped
        if self._done:
            return
        if step is not None:
            self._steps += 1
            self._return += float(step.reward[0])
            self._done = bool(step.terminated[0] | step.truncated[0])
        every = min(-(-env.max_episode_steps // self._max_scenes), MAX_STEPS_BETWEEN_SCENES)
        if not self._done and self._steps % every == 0 and len(self.recording.scenes) < self._max_scenes:
            caption = f"step {self._steps} of {env.max_episode_steps}    return {self._return:.1f}"
            self.recording.add(env.scene(0), caption)


SAMPLED_STEPS = 32
"""At least so many control steps along a policy's way, however many envs there are to sample them in."""


@torch.no_grad()
def sample_observations(env: Env, policy: Policy, *, count: int = 256) -> Obs:
    """Collect `count` observations or a few more along the policy's way, (count, *term.shape) by name.

    They are of different envs in each step, and of all of them where these are few.
    """
    steps = max(SAMPLED_STEPS, -(-count // env.num_envs))
    in_a_step = -(-count // steps)
    obs, seen = env.reset(), []
    for step in range(steps):
        chosen = (step * in_a_step + torch.arange(in_a_step)) % env.num_envs
        seen.append({name: values[chosen.to(values.device)] for name, values in obs.items()})
        obs = env.step(policy.act(obs, deterministic=True)).obs
    return {name: torch.cat([one[name] for one in seen]) for name in obs}


def save_actions(path: Path, policy: OpenLoop, contract: PolicyContract) -> Path:
    """Write an open-loop sequence, `actions` (T, d), and what they mean; no policy runner takes it."""
    np.savez(
        path,
        actions=policy.actions.detach().cpu().numpy(),
        joint_names=np.array(contract.action.joint_names),
        mode=contract.action.mode,
        scale=np.array(contract.action.scale),
        control_dt_s=contract.control_dt_s,
    )
    return path
