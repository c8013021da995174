"""How much of a control step runs close to a kink of the contact law, where a derivative says little.

A diagnostic, not part of a step. A node is near a kink when a small relative change of what decides a branch flips it:
the distance at which a shape's influence sets in, the normal velocity that parts contact from separation, the slip
speed that parts sticking from sliding, the vertical velocity that parts resting on the floor from leaving it.
"""

from typing import Any

import numpy as np
import warp as wp

from rewarped_sim.engine.mpm.contact import MIN_INFLUENCE
from rewarped_sim.engine.mpm.grid import grid_functions, grid_kernels
from rewarped_sim.engine.mpm.signed_distance import signed_distance_functions
from rewarped_sim.engine.mpm.solver import MpmSolver
from rewarped_sim.engine.scalars import Scalars

COUNTS = ("nodes", "touched", "cutoff", "onset", "sliding", "floor")


def count_kinks(solver: MpmSolver, slot: int, band: float = 0.01) -> dict[str, int]:
    """Nodes of the control step just run in `slot`, summed over substeps and envs. Waits for the device.

    band: relative width on either side of a kink; speeds are relative to a gravity step. Returns `nodes` with mass,
    `touched` by at least one shape, and how many of them are near the `cutoff` of influence, the `onset` of contact,
    the onset of `sliding`, and the sign change of the vertical velocity on the `floor`.
    """
    counts = wp.zeros(len(COUNTS), dtype=int, device=solver.device)
    kernel = _kernel(solver.scalars, bool(solver.model.bodies))
    for shard in solver.shards:
        for substep in range(solver.model.num_substeps):
            first, last = np.minimum(shard.starts.numpy()[slot, substep : substep + 2], shard.pool)
            wp.launch(
                kernel,
                (int(last - first), 64),
                inputs=[
                    shard.grid, solver.shapes, substep, int(first), slot, shard.blocks, shard.mask, shard.saved,
                    band, counts,
                ],
                device=solver.device,
            )  # fmt: skip
    return dict(zip(COUNTS, np.asarray(counts.numpy()).tolist(), strict=True))


def _kernel(scalars: Scalars, coupled: bool) -> Any:
    real, vec3, vec4 = scalars.real, scalars.vec3, scalars.vec4
    functions, nodes = grid_functions(scalars), grid_kernels(scalars, coupled)
    Grid, Shapes = functions.Grid, nodes.Shapes
    block_corner, node_in_block, node_position = (
        functions.block_corner,
        functions.node_in_block,
        functions.node_position,
    )
    shape_index, touch = nodes.shape_index, nodes.touch
    signed_distance = signed_distance_functions(scalars).signed_distance
    min_influence = wp.constant(real(MIN_INFLUENCE))

    @wp.kernel(enable_backward=False, module="unique")
    def count(
        grid: Grid,
        shapes: Shapes,
        substep: int,
        first_block: int,
        slot: int,
        blocks: wp.array2d(dtype=int),
        mask: wp.array2d(dtype=int),
        saved: wp.array2d(dtype=vec4),
        band: real,
        counts_out: wp.array(dtype=int),
    ):
        i, lane = wp.tid()
        b = first_block + i
        packed = blocks[slot, b]
        env = packed >> 18
        p = saved[slot, b * 64 + lane]
        if p[3] > grid.min_mass:
            wp.atomic_add(counts_out, 0, 1)
            node = node_in_block(block_corner(packed), lane)
            x = node_position(grid, node)
            slow = band * (grid.dt * wp.length(grid.gravity) + real(1.0e-9))
            cutoff = -wp.log(min_influence) / grid.softness
            v = vec3(p[0], p[1], p[2]) / p[3] + grid.dt * grid.gravity
            touched = int(0)
            near_cutoff = int(0)
            near_onset = int(0)
            near_sliding = int(0)
            for s in range(grid.num_shapes):
                if (mask[slot, b] >> s & 1) == 1:
                    k = shape_index(grid, substep, env, s)
                    q = wp.transpose(shapes.rot[k]) * (x - shapes.pos[k])
                    dn = signed_distance(shapes.kind[s], shapes.size[s], q)
                    if wp.abs(dn[0] - cutoff) < band * cutoff:
                        near_cutoff = 1
                    if dn[0] < cutoff:
                        touched = 1
                        u = v - (shapes.lin[k] + shapes.spin[k] * q)
                        n = shapes.rot[k] * vec3(dn[1], dn[2], dn[3])
                        c = wp.dot(u, n)
                        if wp.abs(c) < slow:
                            near_onset = 1
                        if c < real(0.0):
                            limit = -grid.tool_friction * c
                            if wp.abs(wp.length(u - c * n) - limit) < band * limit:
                                near_sliding = 1
                    v = touch(grid, shapes, k, s, x, v)
            wp.atomic_add(counts_out, 1, touched)
            wp.atomic_add(counts_out, 2, near_cutoff)
            wp.atomic_add(counts_out, 3, near_onset)
            wp.atomic_add(counts_out, 4, near_sliding)
            if node[2] < 3 and wp.abs(v[2]) < slow:
                wp.atomic_add(counts_out, 5, 1)

    return count
