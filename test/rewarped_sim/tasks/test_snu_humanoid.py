"""SNU humanoid: muscles as actions, what is observed and rewarded."""

import pytest
import torch
from legged import make, with_torso


def test_sizes_are_the_published_ones():
    env = make("snu_humanoid")
    assert sum(term.size for term in env.obs_spec) == 53
    assert env.action_dim == 152
    assert (env.model.num_coordinates, env.model.num_dofs) == (29, 24)


def test_observation_shows_the_state():
    env = make("snu_humanoid")
    state = with_torso(env, position=(2.0, 0.0, 0.9), velocity=(0.1, 0.2, 0.3), spin=(0.4, 0.5, 0.6))
    coordinates, rates = torch.linspace(-0.5, 0.5, 22), torch.linspace(1.0, 4.0, 18)
    state["joint_q"][0, 7:], state["joint_qd"][0, 6:] = coordinates, rates
    obs = env.task.observe(state, torch.zeros(1, 152))
    seen = torch.cat([obs[term.name][0] for term in env.obs_spec])
    # The pelvis is one box about its origin, so the origin's velocity is that of its centre of mass.
    expected = [
        0.9,
        0.0,
        0.0,
        0.0,
        1.0,
        *(0.1 * i for i in range(1, 7)),
        *coordinates,
        *(0.1 * rates),
        1.0,
        1.0,
    ]
    assert seen.tolist() == pytest.approx([float(value) for value in expected], abs=1e-6)


def test_muscles_are_driven_and_hinges_are_read():
    env = make("snu_humanoid", num_envs=2)
    assert env.task.action.joint_names[:2] == ("L_Adductor_Brevis", "R_Adductor_Brevis")
    assert len(env.joint_names) == 6
    state = env.state_dict()
    state["joint_q"][:, env.model.coordinate("left_tibia")] = 0.7
    state["joint_qd"][:, env.model.dof("left_tibia")] = -0.3
    env.load_state_dict(state)
    knee = env.joint_names.index("left_tibia")
    assert env.joint_q[:, knee].tolist() == pytest.approx([0.7, 0.7])
    assert env.joint_qd[:, knee].tolist() == pytest.approx([-0.3, -0.3])


def test_actions_run_from_slack_to_full_strength():
    env = make("snu_humanoid")
    action = torch.linspace(-1.0, 1.0, 152)[None]
    controls = env.task.control(env.state, action)
    assert set(controls) == {"activation"}
    assert torch.allclose(controls["activation"][0], torch.linspace(0.0, 1.0, 152))


def test_effort_costs_the_sum_of_activations():
    env = make("snu_humanoid")
    state = with_torso(env, velocity=(1.5, 0.0, 0.0))
    terms = env.task.reward(state, torch.zeros(1, 152))
    assert {name: float(value) for name, value in terms.items()} == {
        "speed": 1.5,
        "up": pytest.approx(0.1),
        "heading": 1.0,
        "effort": pytest.approx(-0.076),
    }


def test_starts_keep_the_joints_as_they_are():
    env = make("snu_humanoid", num_envs=64)
    joints = env.state["joint_q"][:, 7:]
    assert torch.equal(joints, joints[:1].expand(64, -1))
    assert env.state["joint_qd"].abs().max() == pytest.approx(0.25, rel=0.02)


def test_a_low_pelvis_ends_the_episode():
    env = make("snu_humanoid", num_envs=2)
    state = with_torso(env)
    state["joint_q"][:, 2] = torch.tensor([0.459, 0.461])
    assert env.task.terminated(state).tolist() == [True, False]


def test_left_and_right_muscles_pull_alike():
    """The model is symmetric: equal activations of both sides keep it in its plane."""
    env = make("snu_humanoid", randomize=False)
    env.reset()
    with torch.no_grad():
        for _ in range(5):
            obs = env.step(torch.full((1, 152), -0.5)).obs
    assert abs(float(obs["torso_velocity"][0, 1])) < 1e-3
    assert obs["torso_angular_velocity"][0, ::2].abs().max() < 1e-3
    assert obs["torso_velocity"].abs().max() > 1e-2


def test_slack_muscles_do_nothing():
    """Two seconds later the legs have given way; with every muscle half tense the pose is another."""
    poses = []
    for action in (-1.0, 0.0):
        env = make("snu_humanoid", randomize=False)
        env.reset()
        with torch.no_grad():
            for _ in range(10):
                env.step(torch.full((1, 152), action))
        poses.append(env.state["joint_q"][0, 7:])
    assert (poses[0] - poses[1]).abs().max() > 0.05
