"""SpringPress: the dough pushes the plate back, the reward by hand, gradients through the spring by differences."""

import numpy as np
import pytest
import torch

import rewarped_sim
from rewarped_sim.engine.mpm.model import MpmModel
from rewarped_sim.tasks.spring_press import ARM_START, BLOCK_SIZE, HIGHEST_TARGET, LOWEST_TARGET, SPRING

FLOOR = 3.0 / 32.0


def make(**options):
    return rewarped_sim.make("spring_press", **({"num_envs": 1, "horizon": 20} | options))


def push(env, depth, steps):
    """Lower the arm by `depth` [m], or raise it, and wait; returns (plate position, arm position), (3,) each."""
    env.reset()
    down = torch.zeros(1, 3)
    with torch.no_grad():
        for step in range(steps):
            down[0, 2] = -min(max(100.0 * abs(depth) - step, 0.0), 1.0) * np.sign(depth)
            env.step(down)
    state = env.state_dict()
    return state["bodies"][0, 0, :3], state["joint_q"][0]


def test_the_plate_follows_the_arm_in_free_air_and_stays_behind_in_dough():
    plate, arm = push(make(randomize=False), -0.05, 60)
    torch.testing.assert_close(plate, arm, atol=5e-4, rtol=0.0)
    plate, arm = push(make(randomize=False), 0.05, 60)
    assert plate[2] - arm[2] > 0.01


def test_what_the_spring_pushes_with_goes_through_the_dough():
    env = make(randomize=False)
    plate, arm = push(env, 0.05, 90)
    force = SPRING.stiffness * float(plate[2] - arm[2])
    state = env.state_dict()
    assert state["v"].abs().max() < 0.3, "at rest"
    # The force through a horizontal cut: stress of the particles in a slab, from their deformation gradients.
    part = env.model.parts[0]
    _, mu, lam = part.material.row(part.particle_volume)[:3]
    U, stretch, _ = np.linalg.svd(state["F"][0].double().numpy())
    strain = np.log(stretch)
    stress = 2 * mu * strain + lam * strain.sum(1, keepdims=True)
    vertical = np.einsum("pi,pi,pi->p", U[:, 2], stress, U[:, 2])
    height = state["x"][0, :, 2].numpy()
    low, high = FLOOR + 0.02, FLOOR + 0.06
    slab = (height > low) & (height < high)
    through = -(part.particle_volume * vertical[slab]).sum() / (high - low)
    above = part.particle_volume * part.material.density * 90.0 * (height > (low + high) / 2).sum()
    assert force > 1.0
    assert through == pytest.approx(force + above, rel=0.15)


def test_reward_by_hand():
    env = make(num_envs=2, randomize=True)
    env.reset()
    with torch.no_grad():
        result = env.step(torch.zeros(2, 3))
    target = result.obs["target_q"][:, 2].numpy()
    height = result.obs["particle_q"][:, :, 2].numpy().mean(axis=1)
    untouched = FLOOR + BLOCK_SIZE[2] / 2
    expected = 1.0 / (1.0 + 4.0 * ((height - target) / (untouched - target)) ** 2)
    np.testing.assert_allclose(result.reward.numpy(), expected, rtol=1e-4)
    shares = (target - FLOOR) / (BLOCK_SIZE[2] / 2)
    assert (shares >= LOWEST_TARGET - 1e-6).all()
    assert (shares <= HIGHEST_TARGET + 1e-6).all()
    assert shares[0] != shares[1]


def test_action_gradient_goes_through_the_spring():
    env = make(randomize=False)
    push(env, 0.03, 12)
    start = env.state_dict()

    def height(push_z):
        env.load_state_dict(start)
        action = torch.tensor([[0.0, 0.0, push_z]])
        for _ in range(8):
            result = env.step(action)
        return result.obs["com_q"][0, 2].double()

    action = torch.tensor(-0.5, requires_grad=True)
    env.load_state_dict(start)
    for _ in range(8):
        result = env.step(torch.stack([torch.zeros(()), torch.zeros(()), action])[None])
    (gradient,) = torch.autograd.grad(result.obs["com_q"][0, 2], action)
    with torch.no_grad():
        expected = (height(-0.45) - height(-0.55)) / 0.1
    assert gradient.item() == pytest.approx(expected.item(), rel=0.05)
    assert gradient.item() > 1e-4


def test_scene_shows_the_plate_where_it_is_and_not_where_the_arm_is():
    env = make(randomize=False)
    plate, arm = push(env, 0.05, 60)
    (shown,) = (shape for shape in env.scene().shapes if shape.name == "plate")
    np.testing.assert_allclose(shown.position, plate.numpy(), atol=1e-6)
    assert np.abs(shown.position - arm.numpy()).max() > 0.01


def test_the_model_is_stable_and_fits_its_pool():
    model = make().model
    assert isinstance(model, MpmModel)
    assert model.cfl < 0.5
    assert tuple(make().joint_q[0].tolist()) == pytest.approx(ARM_START)


def test_stored_and_recomputed_gradients_are_bit_identical():
    gradients = []
    for storage in ("store", "recompute"):
        env = make(num_envs=2, storage=storage, material_spread=0.2)
        env.reset()
        action = torch.tensor([[0.0, 0.0, -1.0], [0.1, 0.0, -0.8]], requires_grad=True)
        total = sum(env.step(action).reward.sum() for _ in range(12))
        gradients.append(torch.autograd.grad(total, action)[0])
    assert torch.equal(*gradients)
    assert (gradients[0][:, 2] != 0).all()
