"""Faults injected into a real run: the state before is kept, and its replay says where they began."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rewarped_sim.env import Env
from rewarped_sim.replay_fault import main, replay
from rewarped_sim.tasks.cartpole import Cartpole
from rewarped_sim.torch_bridge.bridge import Bridge
from rewarped_sim.train import train
from rewarped_sim.train_config import read_train_config
from sapo_learner.learner import TrainingDiverged
from sapo_learner.metrics import read_metrics

TINY = """
run: {task: cartpole, num_envs: 3, epochs: 4, checkpoint_every: 2, eval_episodes: 3, video: false, device: cpu}
task: {max_episode_steps: 50}
sapo: {horizon: 4, actor_hidden: [8], critic_hidden: [8], critic_passes: 1, max_skipped_updates: 2}
"""
EPOCH, STEP, ENV, HORIZON = 3, 2, 1, 4
"""Where the fault is: third epoch, third step, second env."""


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    config = read_train_config({"out_dir": str(tmp_path / "run")}, config_path=str(path))
    return lambda: train(config)


def only_in(condition, spoil, value):
    """`value`, spoiled in one env while `condition`."""
    return torch.where(condition & (torch.arange(3) == ENV).view(-1, *[1] * (value.dim() - 1)), spoil, value)


def at_fault(env):
    """Which envs are at the faulty step: told by their clocks, which a replay restores."""
    return env._clock == (EPOCH - 1) * HORIZON + STEP


def break_state(monkeypatch):
    physics = Env._physics

    def broken(env, action):
        after = physics(env, action)
        return {**after, "joint_qd": only_in(at_fault(env)[:, None], torch.nan, after["joint_qd"])}

    monkeypatch.setattr(Env, "_physics", broken)


def break_reward(monkeypatch):
    step, reward = Env.step, Cartpole.reward
    current = {}

    def remembering(env, action):
        current["env"] = env
        return step(env, action)

    def look_ahead(env, action, original=Env.look_ahead):
        current["env"] = env
        return original(env, action)

    def broken(task, state, action):
        terms = reward(task, state, action)
        name = next(iter(terms))
        return {**terms, name: only_in(at_fault(current["env"]), torch.inf, terms[name])}

    monkeypatch.setattr(Env, "step", remembering)
    monkeypatch.setattr(Env, "look_ahead", look_ahead)
    monkeypatch.setattr(Cartpole, "reward", broken)


def break_adjoint(monkeypatch):
    """NaN out of the physics' own backward pass, in the window whose clocks began at EPOCH."""
    backward, detach = Bridge._backward, Env.detach
    window = {}

    def detached(env):
        window[env._bridge] = int(env._clock[ENV])
        return detach(env)

    def broken(bridge, slot, result_bars):
        if window.get(bridge) == (EPOCH - 1) * HORIZON and slot == STEP:
            result_bars = (result_bars[0].clone(), *result_bars[1:])
            result_bars[0][ENV] = torch.nan
        return backward(bridge, slot, result_bars)

    monkeypatch.setattr(Env, "detach", detached)
    monkeypatch.setattr(Bridge, "_backward", broken)


CASES = {
    "state": (break_state, "nonfinite", f"step {STEP}, env {ENV}: state 'joint_qd' is nan at [0]"),
    "reward": (break_reward, "nonfinite", f"step {STEP}, env {ENV}: reward term "),
    "adjoint": (
        break_adjoint,
        "bad_adjoints",
        f"step {STEP}, env {ENV}: the gradient through physics is not finite or beyond 1e12, and is dropped",
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_the_state_before_is_kept_and_its_replay_says_where_it_began(case, run, monkeypatch, caplog):
    inject, metric, line = CASES[case]
    inject(monkeypatch)
    caplog.set_level(logging.INFO)
    result = run()
    dump = result.out_dir / "faults" / f"epoch_{EPOCH:06d}.pt"
    assert list(dump.parent.iterdir()) == [dump]
    assert sum(f"replay_fault {dump}" in message for message in caplog.messages) == 1
    row = read_metrics(result.out_dir / "metrics.csv")[EPOCH - 1]
    assert row[metric] >= 1 and row["actor/skipped"] == 0

    metrics, findings = replay(dump)
    assert str(findings[0]).startswith(line)
    assert {finding.env for finding in findings} == {ENV}
    for name in ("step_reward", "actor/objective", "actor/grad_norm", "critic/loss"):
        assert f"{metrics[name]:.9g}" == f"{row[name]:.9g}", f"{name}: the replay is the epoch itself"


def test_a_gradient_that_is_never_finite_ends_the_run_with_a_checkpoint_and_a_way_to_look(
    run, monkeypatch, caplog
):
    reward = Cartpole.reward

    def broken(task, state, action):
        terms = reward(task, state, action)
        # a root at 0 has a value, but no gradient; the action is clipped at +-1, where it has none either
        return {**terms, "root": (action[:, 0] - action[:, 0].detach()).abs().sqrt()}

    monkeypatch.setattr(Cartpole, "reward", broken)
    with pytest.raises(TrainingDiverged, match="epoch 2: no finite actor gradient 2 times in a row"):
        run()
    folder = next(path for path in caplog.text.split() if path.endswith("epoch_000001.pt"))
    metrics, findings = replay(Path(folder))
    assert metrics["actor/skipped"] == 1
    assert any("the gradient that reaches the action is nan" in str(finding) for finding in findings)
    assert any("the gradient of the policy's " in str(finding) for finding in findings)


def test_what_is_no_dump_of_a_run_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("rewarped_sim.replay_fault.show_log", lambda *_: None)
    (tmp_path / "file.pt").write_text("")
    assert main([str(tmp_path / "file.pt")]) == 2
    assert "is not the folder of a run" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("rewarped_sim.replay_fault.show_log", lambda *_: None)
    assert main([str(tmp_path / "nosuch.pt")]) == 2
    assert "nosuch.pt: expected <run>/faults/epoch_<n>.pt, found nothing" in capsys.readouterr().err


def test_the_program_says_what_it_found(run):
    checkpoint = run().out_dir / "checkpoints" / "checkpoint_000002.pt"
    ended = subprocess.run(
        [sys.executable, "-m", "rewarped_sim.replay_fault", str(checkpoint)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1, ended.stderr
    assert "actor's gradient norm" in ended.stderr and "nothing was wrong this time" in ended.stderr
