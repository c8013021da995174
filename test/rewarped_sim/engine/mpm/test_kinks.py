"""The count of nodes near a kink of the contact law, against scenes where it is known."""

import numpy as np
from scenes import make_model, make_solver, random_joints, random_state, run_forward

from rewarped_sim.engine.kinematics import Shape, Tool
from rewarped_sim.engine.mpm.contact import MIN_INFLUENCE
from rewarped_sim.engine.mpm.kinks import count_kinks


def test_the_share_of_nodes_near_a_kink_grows_with_the_band_and_is_small():
    model = make_model()
    solver = make_solver(model)
    rng = np.random.default_rng(0)
    state = random_state(rng, 1, model.num_particles)
    run_forward(solver, state, *random_joints(rng, 1))
    narrow, wide = (count_kinks(solver, 0, band) for band in (0.001, 0.1))
    assert (
        narrow["nodes"]
        == wide["nodes"]
        == (solver.shards[0].saved.numpy()[0, : solver.active_blocks(0).sum() * 64, 3] > 0).sum()
    )
    assert 0 < narrow["touched"] < narrow["nodes"]
    for name in ("cutoff", "sliding"):
        assert narrow[name] < wide[name] < 0.3 * wide["nodes"]


def test_nodes_that_found_no_room_in_a_full_block_pool_are_not_counted():
    model = make_model(max_blocks=2)
    solver = make_solver(model)
    state = random_state(np.random.default_rng(2), 1, model.num_particles)
    solver.state.numpy()[0] = state.reshape(-1)
    solver.forward(0)
    assert solver.active_blocks(0).sum() > solver.shards[0].pool
    (shard,) = solver.shards
    assert count_kinks(solver, 0)["nodes"] == (shard.saved.numpy()[0, :, 3] > shard.grid.min_mass).sum()


def test_nodes_on_the_cutoff_of_a_plane_are_all_counted():
    # A plane under the block, so far down that one layer of nodes sits right at its cutoff.
    model = make_model(num_substeps=1)
    layer = 4.0 / model.grid_size
    height = layer + np.log(MIN_INFLUENCE) / model.softness
    table = Shape(name="table", kind="plane", size=(), position=(0.0, 0.0, height))
    model = make_model(num_substeps=1, tool=Tool(shapes=(table,)))
    solver = make_solver(model)
    rng = np.random.default_rng(1)
    state = random_state(rng, 1, model.num_particles)
    run_forward(solver, state, np.zeros((1, 1)), np.zeros((1, 1)))
    base = np.floor(state[0, :, :3] * model.grid_size - 0.5).astype(int)
    nodes = {tuple(node + corner) for node in base for corner in np.ndindex(3, 3, 3)}
    counts = count_kinks(solver, 0)
    assert counts["nodes"] == len(nodes)
    assert counts["cutoff"] == sum(node[2] == 4 for node in nodes)
