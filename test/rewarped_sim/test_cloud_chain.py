"""The chain of training gives the very points of the policy runner's chain, cloud by cloud."""

import numpy as np
import pytest
import torch

from policy_runner.contract import PointCloudSpec
from policy_runner.pointcloud import TooFewPointsError, preprocess
from rewarped_sim.cloud_chain import CloudChain

CPU = torch.device("cpu")


def spec(**changes):
    box = {"crop_min": (0.1, 0.05, 0.2), "crop_max": (0.9, 0.8, 0.7)}
    return PointCloudSpec(**({"frame": "world", "num_points": 16} | box | changes))


def clouds(num_envs, num_rows, seed):
    """Clouds with rows on, inside and outside of the box, coinciding rows, and few to all rows present."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-0.1, 1.1, (num_envs, num_rows, 3)).astype(np.float32)
    edges = np.array([0.1, 0.05, 0.2, 0.9, 0.8, 0.7], np.float32)
    points[:, ::9] = rng.choice(edges, points[:, ::9].shape)
    points[:, 1::7] = points[:, :1]
    present = rng.uniform(size=(num_envs, num_rows)) < np.linspace(0.02, 1.0, num_envs)[:, None]
    return points, present


@pytest.mark.parametrize("sampler", ["stride", "random"])
@pytest.mark.parametrize("voxel_m", [0.0, 0.03, 0.11, 2.0])
@pytest.mark.parametrize("num_rows", [5, 16, 40, 700])
def test_a_batch_of_random_clouds_becomes_what_the_runner_makes_of_each(sampler, voxel_m, num_rows):
    wanted = spec(sampler=sampler, voxel_m=voxel_m, seed=5)
    chain = CloudChain(wanted, num_rows, CPU)
    compared = 0
    for seed in range(6):
        points, present = clouds(24, num_rows, seed)
        found = chain(torch.from_numpy(points), torch.from_numpy(present)).numpy()
        for env in range(24):
            try:
                expected = preprocess(points[env][present[env]], wanted)
            except TooFewPointsError:
                continue
            np.testing.assert_array_equal(found[env], expected)
            compared += 1
    assert compared > 20


@pytest.mark.parametrize("min_points", [1, 7])
def test_where_the_runner_holds_training_shows_the_middle_of_the_box_without_gradient(min_points):
    wanted = spec(min_points=min_points)
    points = torch.full((2, 30, 3), 0.5, requires_grad=True)
    present = torch.zeros(2, 30, dtype=torch.bool)
    present[0, : min_points - 1], present[1, :min_points] = True, True
    with pytest.raises(TooFewPointsError):
        preprocess(points[0].detach().numpy()[present[0].numpy()], wanted)
    found = CloudChain(wanted, 30, CPU)(points, present)
    torch.testing.assert_close(found[0], torch.tensor([0.5, 0.425, 0.45]).expand(16, 3))
    torch.testing.assert_close(found[1], torch.full((16, 3), 0.5))
    (gradient,) = torch.autograd.grad(found.sum(), points)
    assert (gradient[0] == 0).all() and gradient[1].sum().item() == pytest.approx(48.0)


def test_a_voxels_gradient_is_shared_among_its_points():
    wanted = spec(voxel_m=1.0, num_points=1)
    points = torch.tensor([[[0.2, 0.2, 0.3], [0.4, 0.3, 0.5], [0.6, 0.1, 0.4], [5.0, 5.0, 5.0]]])
    found = CloudChain(wanted, 4, CPU)(points.requires_grad_(), torch.ones(1, 4, dtype=torch.bool))
    torch.testing.assert_close(found, torch.tensor([[[0.4, 0.2, 0.4]]]))
    (gradient,) = torch.autograd.grad(found[..., 0].sum(), points)
    torch.testing.assert_close(gradient[0, :, 0], torch.tensor([1.0, 1.0, 1.0, 0.0]) / 3.0)


def test_a_sampler_that_looks_at_positions_is_refused():
    with pytest.raises(ValueError, match=r"takes one of \['stride', 'random'\], got 'farthest'"):
        CloudChain(spec(sampler="farthest"), 10, CPU)
