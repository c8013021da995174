"""Tasks with `cloud: camera`: exact when repeated, batched or resumed, and what the runner would make of it."""

import numpy as np
import pytest
import torch

import rewarped_sim
from policy_runner.contract import PolicyContract
from policy_runner.pointcloud import TooFewPointsError, preprocess
from rewarped_sim.env import StateError
from rewarped_sim.registry import ConfigError

TINY = {"num_particles": 256, "grid_size": 24, "num_substeps": 20, "max_episode_steps": 6}


def make(num_envs=2, task="rolling_flat_small", **options):
    tiny = TINY if task == "rolling_flat_small" else {}
    return rewarped_sim.make(task, num_envs=num_envs, **(tiny | {"cloud": "camera", "horizon": 8} | options))


def actions(env, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(steps, env.num_envs, env.action_dim, generator=generator) * 2 - 1


@torch.no_grad()
def clouds(env, sequence):
    """What a policy sees after each of these actions (steps, num_envs, action_dim)."""
    return torch.stack([env.step(action).obs["particle_q"] for action in sequence])


def test_the_same_seed_sees_the_same_and_every_env_step_and_episode_has_noise_of_its_own():
    still = {"max_episode_steps": 2, "randomize": False}
    first, again = make(**still), make(**still)
    assert torch.equal(first.reset()["particle_q"], again.reset()["particle_q"])
    sequence = torch.zeros(4, 2, 3)
    seen = clouds(first, sequence)
    assert torch.equal(seen, clouds(again, sequence))
    assert not torch.equal(seen[0, 0], seen[0, 1]), "envs in the same state"
    assert not torch.equal(seen[1], seen[3]), "episodes that start the same"
    other = make(**still, seed=1)
    other.reset()
    assert not torch.equal(seen, clouds(other, sequence))


def test_every_step_is_a_picture_of_its_own_even_where_nothing_moves():
    env = make()
    first = env.reset()["particle_q"]
    clouds(env, torch.zeros(3, 2, 3))
    state = env.state_dict()
    assert state["camera_frame"][:, 1].tolist() == [3, 3]
    now = env.detach()["particle_q"]
    state["camera_frame"][:, 1] += 1
    env.load_state_dict(state)
    later = env.detach()["particle_q"]
    assert not torch.equal(now, later) and not torch.equal(first, now)


def test_an_env_sees_the_same_in_a_batch_of_any_size():
    small, large = make(num_envs=2), make(num_envs=3)
    small.reset(), large.reset()
    sequence = actions(large, 8)
    assert torch.equal(clouds(small, sequence[:, :2]), clouds(large, sequence)[:, :2])


def test_a_restored_env_goes_on_seeing_exactly_what_it_would_have_seen():
    env = make()
    env.reset()
    sequence = actions(env, 9)
    clouds(env, sequence[:3])
    saved = env.state_dict()
    expected = clouds(env, sequence[3:])
    resumed = make(seed=99)
    resumed.reset()
    resumed.load_state_dict(saved)
    assert torch.equal(clouds(resumed, sequence[3:]), expected)


def test_detaching_shows_the_same_picture_again():
    env = make()
    env.reset()
    seen = env.step(actions(env, 1)[0]).obs["particle_q"]
    assert torch.equal(env.detach()["particle_q"], seen)


def test_the_end_of_an_episode_is_seen_before_and_the_next_start_after_the_reset():
    env = make(max_episode_steps=2)
    env.reset()
    with torch.no_grad():
        env.step(torch.zeros(2, 3))
        last = env.step(torch.zeros(2, 3))
    assert last.truncated.all()
    assert not torch.equal(last.obs["particle_q"], last.terminal_obs["particle_q"])
    assert (env.state_dict()["camera_frame"][:, 1] == 0).all()


def test_starts_motion_and_reward_are_those_of_the_task_without_a_camera():
    camera, particles = make(), make(cloud="particles")
    camera.reset(), particles.reset()
    sequence = actions(camera, 8)
    with torch.no_grad():
        for action in sequence:
            assert torch.equal(camera.step(action).reward, particles.step(action).reward)
    assert torch.equal(camera.state["particles"], particles.state["particles"])
    assert "camera_frame" not in particles.state_dict()


@pytest.mark.parametrize(
    "camera_cloud", [{}, {"voxel_m": 0.03, "num_points": 64, "crop_min": [0.0, 0.0, 0.12]}]
)
def test_the_runner_makes_the_same_points_of_what_the_camera_sees(camera_cloud):
    env = make(camera_cloud=camera_cloud)
    env.reset()
    contract = PolicyContract.from_json(env.contract(policy_name="test", train={}).to_json())
    assert contract.point_cloud is not None
    for action in actions(env, 3):
        with torch.no_grad():
            obs = env.step(action).obs
        for index in range(2):
            cloud = env.scene(index).cloud
            assert cloud is not None and 0 < len(cloud) < 256
            expected = preprocess(cloud, contract.point_cloud)
            np.testing.assert_array_equal(obs["particle_q"][index].numpy(), expected)
            np.testing.assert_allclose(obs["com_q"][index].numpy(), expected.mean(axis=0), atol=1e-6)


def test_a_gradient_goes_through_the_particles_that_are_seen():
    env = make()
    env.reset()
    state = env.state_dict()
    state["joint_q"][:, 1] = 0.17  # the pin stands in the dough
    env.load_state_dict(state)
    action = torch.zeros(2, 3, requires_grad=True)
    for _ in range(4):
        obs = env.step(action).obs
    (gradient,) = torch.autograd.grad(obs["particle_q"].sum(), action)
    assert torch.isfinite(gradient).all() and (gradient[:, 1] != 0).all()


@torch.no_grad()
def test_the_rolling_pin_hides_what_is_under_it():
    env = make(
        num_envs=2,
        randomize=False,
        camera={"dropout": 0.0, "position": [0.5, 0.5, 1.2], "look_at": [0.5, 0.5, 0.1]},
    )
    env.reset()
    state = env.state_dict()
    state["joint_q"] = torch.tensor([[0.5, 0.3, 0.0], [0.12, 0.3, 0.0]])  # over the dough, and beside it
    env.load_state_dict(state)
    over, beside = (env.scene(index).cloud for index in range(2))
    assert len(over) < 0.85 * len(beside)
    assert not (np.abs(over[:, 0] - 0.5) < 0.025).any(), "the pin is 3 cm thick to either side"
    assert (np.abs(beside[:, 0] - 0.5) < 0.025).any()


@pytest.mark.parametrize("task", ["hand_flip_small", "fluid_move_small", "spring_press"])
@torch.no_grad()
def test_every_task_with_particles_shows_some_of_them_and_not_all(task):
    env = make(task=task, horizon=0, requires_grad=False)
    obs = env.reset()
    for index in range(2):
        cloud = env.scene(index).cloud
        assert 20 < len(cloud) < 0.6 * env.state["particles"].shape[1]
        particles = env.state["particles"][index, :, :3].numpy()
        nearest = np.linalg.norm(cloud[:, None] - particles[None], axis=2).min(axis=1)
        assert nearest.max() < 0.02, "noise of millimetres"
    assert {name: tuple(value.shape[1:]) for name, value in obs.items()} == {
        term.name: term.shape for term in env.obs_spec
    }


def test_nothing_seen_is_an_observation_and_the_runner_holds():
    env = make(camera={"position": [0.5, 0.5, 1.5], "look_at": [0.5, 0.5, 3.0]})
    obs = env.reset()
    assert (obs["particle_q"] == 0.5).all()
    with pytest.raises(TooFewPointsError):
        preprocess(env.scene(0).cloud, env.task.point_cloud)


def test_a_checkpoint_without_a_camera_is_refused_by_the_field_that_is_missing():
    with pytest.raises(StateError, match="'camera_frame' is missing"):
        make().load_state_dict(make(cloud="particles").state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cloud": "lidar"}, r"cloud must be one of \['particles', 'camera'\], got 'lidar'"),
        ({"camera": {"fov": 40.0}}, r"rolling_flat_small.camera: unknown setting 'fov'; did you mean 'fov_deg'"),
        ({"camera": {"fov_deg": 200.0}}, r"rolling_flat_small.camera: fov_deg must be in \(0, 180\), got 200"),
        ({"camera": {"position": [0.5, 0.5]}}, r"camera.position: expected 3 values, got 2"),
        ({"camera": {"position": [0.5, 0.5, 0.05]}}, "above the floor at z = 0.125"),
        ({"camera": 3.0}, "camera: expected CameraConfig, got 3.0"),
        ({"camera_cloud": {"sampler": "farthest"}}, "takes one of"),
        ({"camera_cloud": {"voxel_m": -1.0}}, "point_cloud.voxel_m"),
        ({"camera_cloud": {"frame": "map"}}, "camera_cloud.frame must be 'world', got 'map'"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused_by_name(options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options)
