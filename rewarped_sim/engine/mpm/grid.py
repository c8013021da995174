"""The background grid: dense addresses, sparse sweeps, and the momentum update of a node with its adjoint.

Every environment owns n^3 nodes at fixed addresses, so nothing is hashed and nothing can collide. Only blocks of
4^3 nodes that particles touch are ever visited: a substep's scatter appends each newly touched block to a list, the
node update sweeps that list. Lists of all substeps of a control step share one pool, `starts[n]` to `starts[n + 1]`.

A node update is, in order (MLS-MPM with one-sided tools, facts of the published tasks): v = p / m + g dt; every shape
in turn; the floor (sticky or sliding); separating walls. Nodes next to no mass keep v = 0. The published sticky floor
lets go of a node's whole velocity at once as it rises; under the smooth contact law it grips over `APPROACH_BAND`.
"""

from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.mpm.contact import APPROACH_BAND, SMOOTH, contact_functions
from rewarped_sim.engine.mpm.signed_distance import signed_distance_functions
from rewarped_sim.engine.scalars import Scalars

BLOCK = 4
"""Nodes along the edge of a block."""
BLOCK_NODES = BLOCK**3
MAX_BLOCKS_PER_AXIS = 64
"""Block coordinates are packed into 6 bits each, the environment into the bits above."""
MAX_ENVS = 1 << 13
"""What is left of 31 bits holds no more."""
WALL_NODES = 3
"""Nodes at either end of an axis that form its wall; on the lower end of z they are the floor."""
STICKY_FRICTION = 99.0
"""Floor friction from here on means that nothing slides at all."""
MAX_SHAPES = 32
"""One bit per shape in a block's mask."""
FAULTS = ("left_grid", "inverted", "runaway", "crowded")
"""What can go wrong in an environment, and is recorded for it: a particle ran into the end of the grid; its deformation
gradient turned inside out; it is not finite, or crosses nearly a cell in one substep; the block pool was full."""
NUM_FAULTS = len(FAULTS)
LEFT_GRID, INVERTED, RUNAWAY, CROWDED = range(NUM_FAULTS)


@cache
def grid_functions(scalars: Scalars) -> SimpleNamespace:
    """Build the `Grid` struct and the small functions on node and block addresses."""
    real, vec3 = scalars.real, scalars.vec3

    @wp.struct
    class Grid:
        n: int  # nodes along an axis
        blocks: int  # blocks along an axis
        num_envs: int
        num_particles: int  # per env
        num_substeps: int
        num_shapes: int
        pool: int  # blocks that the list of a control step can hold
        share: int  # of an env in the pool
        dx: real
        inv_dx: real
        dt: real
        gravity: vec3
        floor_friction: real
        tool_friction: real
        softness: real
        contact_law: int
        min_mass: real
        max_speed_sq: real  # of a particle [m^2/s^2]

    @wp.func
    def pack_block(env: int, bx: int, by: int, bz: int):
        return (((env << 6 | bx) << 6) | by) << 6 | bz

    @wp.func
    def block_corner(packed: int):
        """Coordinates of the block's first node."""
        return wp.vec3i((packed >> 12 & 63) * 4, (packed >> 6 & 63) * 4, (packed & 63) * 4)

    @wp.func
    def node_in_block(corner: wp.vec3i, lane: int):
        return wp.vec3i(corner[0] + (lane >> 4), corner[1] + (lane >> 2 & 3), corner[2] + (lane & 3))

    @wp.func
    def address(grid: Grid, env: int, node: wp.vec3i):
        return ((env * grid.n + node[0]) * grid.n + node[1]) * grid.n + node[2]

    @wp.func
    def node_position(grid: Grid, node: wp.vec3i):
        return grid.dx * vec3(real(node[0]), real(node[1]), real(node[2]))

    @wp.func
    def listed(grid: Grid, starts: wp.array2d(dtype=int), slot: int, substep: int):
        """Range of a substep's blocks in the list. `starts` runs on past a full pool, for the host to see."""
        return wp.vec2i(
            wp.min(starts[slot, substep], grid.pool), wp.min(starts[slot, substep + 1], grid.pool)
        )

    return SimpleNamespace(
        Grid=Grid,
        pack_block=pack_block,
        block_corner=block_corner,
        node_in_block=node_in_block,
        address=address,
        node_position=node_position,
        listed=listed,
    )


@cache
def grid_kernels(scalars: Scalars, coupled: bool) -> SimpleNamespace:
    """Build `begin`, `cull`, `update`, and `begin_adj`, `restore`, `update_adj`; but for `begin...` they sweep blocks.

    coupled: whether bodies are there to be pushed back; see `bodies`. The structs that the kernels take, and two of
    their functions, come along.
    """
    real, vec3, vec4, mat33 = scalars.real, scalars.vec3, scalars.vec4, scalars.mat33
    functions = grid_functions(scalars)
    Grid, address, listed = functions.Grid, functions.address, functions.listed
    block_corner, node_in_block, node_position = (
        functions.block_corner,
        functions.node_in_block,
        functions.node_position,
    )
    laws = contact_functions(scalars)
    influence_of, contact = laws.influence_of, laws.contact
    contact_adj, driven_adj = laws.contact_adj, laws.driven_adj
    signed_distance = signed_distance_functions(scalars).signed_distance
    sticky = wp.constant(real(STICKY_FRICTION))
    grip_band = wp.constant(real(APPROACH_BAND))

    @wp.struct
    class Shapes:
        kind: wp.array(dtype=int)
        size: wp.array(dtype=vec3)
        pos: wp.array(dtype=vec3)  # [substep, env, shape]
        rot: wp.array(dtype=mat33)
        lin: wp.array(dtype=vec3)
        spin: wp.array(dtype=mat33)
        body: wp.array(dtype=int)  # the free body that a shape belongs to; -1: the shape is driven

    @wp.struct
    class Exchange:
        """Arrays of `bodies.BodyMotion`, [substep, env, body]."""

        num_bodies: int
        centre: wp.array(dtype=vec3)
        spin: wp.array(dtype=vec3)
        impulse: wp.array(dtype=vec3)
        moment: wp.array(dtype=vec3)

    @wp.struct
    class ExchangeAdjoint:
        centre: wp.array(dtype=vec3)
        velocity: wp.array(dtype=vec3)
        spin: wp.array(dtype=vec3)
        turn: wp.array(dtype=vec3)
        impulse: wp.array(dtype=vec3)
        moment: wp.array(dtype=vec3)

    @wp.func
    def shape_index(grid: Grid, substep: int, env: int, shape: int):
        return (substep * grid.num_envs + env) * grid.num_shapes + shape

    @wp.func
    def body_index(grid: Grid, exchange: Exchange, substep: int, env: int, body: int):
        return (substep * grid.num_envs + env) * exchange.num_bodies + body

    @wp.kernel(enable_backward=False, module="unique")
    def begin(
        first_env: int,
        num_envs: int,
        nodes_per_env: int,
        num_substeps: int,
        slot: wp.array(dtype=int),
        # in and out
        faults: wp.array2d(dtype=int),
        starts: wp.array2d(dtype=int),
        most: wp.array(dtype=int),
        # out
        asked_out: wp.array(dtype=int),
        momentum_out: wp.array(dtype=vec4),
    ):
        # An empty list for the first scatter of a control step to append to; a clean record for each env.
        env = first_env + wp.tid()
        asked_out[slot[0] * num_envs + env] = 0
        if wp.tid() == 0:
            # What the slot held is forgotten here; whether it fitted, the host has yet to see.
            most[0] = wp.max(most[0], starts[slot[0], num_substeps])
            starts[slot[0], 0] = 0
            starts[slot[0], 1] = 0
        if faults[env, CROWDED] > 0 or faults[env, RUNAWAY] > 0:
            # Blocks that found no place in the list were not swept, and keep what was scattered into them.
            for node in range(nodes_per_env):
                momentum_out[env * nodes_per_env + node] = vec4()
        for fault in range(NUM_FAULTS):
            faults[env, fault] = 0

    @wp.kernel(enable_backward=False, module="unique")
    def cull(
        grid: Grid,
        shapes: Shapes,
        substep: int,
        stride: int,
        slot: wp.array(dtype=int),
        blocks: wp.array2d(dtype=int),
        starts: wp.array2d(dtype=int),
        # out
        mask_out: wp.array2d(dtype=int),
    ):
        # A signed distance changes by at most the distance walked, so its value at the centre bounds the block.
        reach = real(1.5 * 1.7320508) * grid.dx
        row = slot[0]
        span = listed(grid, starts, row, substep)
        for b in range(span[0] + wp.tid(), span[1], stride):
            packed = blocks[row, b]
            env = packed >> 18
            centre = node_position(grid, block_corner(packed)) + real(1.5) * vec3(grid.dx, grid.dx, grid.dx)
            mask = int(0)
            for s in range(grid.num_shapes):
                i = shape_index(grid, substep, env, s)
                q = wp.transpose(shapes.rot[i]) * (centre - shapes.pos[i])
                dn = signed_distance(shapes.kind[s], shapes.size[s], q)
                nearest, _ = influence_of(dn[0] - reach, grid.softness, grid.contact_law)
                if nearest > real(0.0):
                    mask = mask | (1 << s)
            mask_out[row, b] = mask

    @wp.func
    def touch(grid: Grid, shapes: Shapes, i: int, s: int, x: vec3, v: vec3):
        """Velocity of a node after shape s, posed at index i."""
        return contact(
            v, x, shapes.kind[s], shapes.size[s], shapes.pos[i], shapes.rot[i], shapes.lin[i], shapes.spin[i],
            grid.softness, grid.tool_friction, grid.contact_law,
        )  # fmt: skip

    @wp.func
    def before_walls(
        grid: Grid, shapes: Shapes, substep: int, env: int, mask: int, upto: int, x: vec3, momentum: vec4
    ):
        """Velocity of a node after gravity and its first `upto` shapes."""
        v = vec3(momentum[0], momentum[1], momentum[2]) / momentum[3] + grid.dt * grid.gravity
        for s in range(upto):
            if (mask >> s & 1) == 1:
                v = touch(grid, shapes, shape_index(grid, substep, env, s), s, x, v)
        return v

    @wp.func
    def exchange_momentum(
        grid: Grid,
        shapes: Shapes,
        exchange: Exchange,
        substep: int,
        env: int,
        mask: int,
        x: vec3,
        momentum: vec4,
    ):
        """As `before_walls` with all shapes; what the node loses to a free body's shape, the body gains."""
        v = vec3(momentum[0], momentum[1], momentum[2]) / momentum[3] + grid.dt * grid.gravity
        for s in range(grid.num_shapes):
            if (mask >> s & 1) == 1:
                before = v
                v = touch(grid, shapes, shape_index(grid, substep, env, s), s, x, v)
                body = shapes.body[s]
                if body >= 0:
                    i = body_index(grid, exchange, substep, env, body)
                    lost = momentum[3] * (before - v)
                    wp.atomic_add(exchange.impulse, i, lost)
                    wp.atomic_add(exchange.moment, i, wp.cross(x - exchange.centre[i], lost))
        return v

    @wp.func
    def floor_scale(grid: Grid, v: vec3):
        """What the floor leaves of the velocity of a node that moves down into it."""
        scale = real(0.0)
        if grid.floor_friction < sticky:
            scale = real(1.0)
            if grid.floor_friction > real(0.0):
                scale = wp.max(real(1.0) + grid.floor_friction * v[2] / wp.length(v), real(0.0))
        elif grid.contact_law == SMOOTH:
            t = wp.min(-v[2] / grip_band, real(1.0))
            scale = real(1.0) - t * t * (real(3.0) - real(2.0) * t)
        return scale

    @wp.func
    def walls(grid: Grid, node: wp.vec3i, v: vec3):
        """Separating walls: no component into a wall survives."""
        result = v
        for i in range(3):
            if (node[i] < 3 and v[i] < real(0.0)) or (node[i] > grid.n - 3 and v[i] > real(0.0)):
                result[i] = real(0.0)
        return result

    @wp.func
    def boundary(grid: Grid, node: wp.vec3i, v: vec3):
        result = v
        if node[2] < 3 and v[2] < real(0.0):
            result = floor_scale(grid, v) * v
        return walls(grid, node, result)

    @wp.func
    def boundary_adj(grid: Grid, node: wp.vec3i, v: vec3, v_new_bar: vec3):
        on_floor = node[2] < 3 and v[2] < real(0.0)
        scale = real(1.0)
        if on_floor:
            scale = floor_scale(grid, v)
        slid = scale * v
        v_bar = v_new_bar
        for i in range(3):
            if (node[i] < 3 and slid[i] < real(0.0)) or (node[i] > grid.n - 3 and slid[i] > real(0.0)):
                v_bar[i] = real(0.0)
        scale_bar = wp.dot(v, v_bar)
        v_bar = scale * v_bar
        if on_floor and scale > real(0.0):
            if grid.floor_friction >= sticky:
                t = -v[2] / grip_band  # under the smooth law; the published one leaves nothing
                v_bar[2] += scale_bar * real(6.0) * t * (real(1.0) - t) / grip_band
            elif grid.floor_friction > real(0.0):
                length = wp.length(v)
                v_bar += (
                    scale_bar
                    * grid.floor_friction
                    / length
                    * (vec3(real(0.0), real(0.0), real(1.0)) - (v[2] / (length * length)) * v)
                )
        return v_bar

    @wp.kernel(enable_backward=False, module="unique")
    def update(
        grid: Grid,
        shapes: Shapes,
        exchange: Exchange,
        substep: int,
        stride: int,
        slot: wp.array(dtype=int),
        blocks: wp.array2d(dtype=int),
        mask: wp.array2d(dtype=int),
        # in and out
        starts: wp.array2d(dtype=int),
        stamp: wp.array(dtype=int),
        momentum: wp.array(dtype=vec4),
        # out
        velocity_out: wp.array(dtype=vec4),
        saved_out: wp.array2d(dtype=vec4),
    ):
        row = slot[0]
        span = listed(grid, starts, row, substep)
        if wp.tid() == 0:
            if substep + 1 < grid.num_substeps:
                starts[row, substep + 2] = starts[row, substep + 1]  # the next scatter appends from here
            stamp[0] = stamp[0] + 1
        for u in range(wp.tid(), (span[1] - span[0]) * 64, stride):
            b = span[0] + (u >> 6)
            packed = blocks[row, b]
            env = packed >> 18
            node = node_in_block(block_corner(packed), u & 63)
            at = address(grid, env, node)
            p = momentum[at]
            momentum[at] = vec4()
            saved_out[row, b * 64 + (u & 63)] = p
            v = vec3()
            if p[3] > grid.min_mass:
                x = node_position(grid, node)
                if wp.static(coupled):
                    v = exchange_momentum(grid, shapes, exchange, substep, env, mask[row, b], x, p)
                else:
                    v = before_walls(grid, shapes, substep, env, mask[row, b], grid.num_shapes, x, p)
                v = boundary(grid, node, v)
            velocity_out[at] = vec4(v[0], v[1], v[2], real(0.0))

    @wp.kernel(enable_backward=False, module="unique")
    def begin_adj(
        grid: Grid,
        first_env: int,
        nodes_per_env: int,
        slot: wp.array(dtype=int),
        starts: wp.array2d(dtype=int),
        asked: wp.array(dtype=int),
        # out
        adjoint_out: wp.array(dtype=vec4),
    ):
        # No `restore` cleans blocks that found no place in the list, and a reset env shall pass no gradient.
        env = first_env + wp.tid()
        full = starts[slot[0], grid.num_substeps] > grid.pool
        if full or asked[slot[0] * grid.num_envs + env] > grid.share:
            for node in range(nodes_per_env):
                adjoint_out[env * nodes_per_env + node] = vec4()

    @wp.kernel(enable_backward=False, module="unique")
    def restore(
        grid: Grid,
        shapes: Shapes,
        substep: int,
        stride: int,
        slot: wp.array(dtype=int),
        blocks: wp.array2d(dtype=int),
        mask: wp.array2d(dtype=int),
        starts: wp.array2d(dtype=int),
        saved: wp.array2d(dtype=vec4),
        # out
        velocity_out: wp.array(dtype=vec4),
        adjoint_out: wp.array(dtype=vec4),
    ):
        # Node velocities again, from the saved momenta; and a clean place for their adjoints.
        row = slot[0]
        span = listed(grid, starts, row, substep)
        for u in range(wp.tid(), (span[1] - span[0]) * 64, stride):
            b = span[0] + (u >> 6)
            packed = blocks[row, b]
            env = packed >> 18
            node = node_in_block(block_corner(packed), u & 63)
            p = saved[row, b * 64 + (u & 63)]
            v = vec3()
            if p[3] > grid.min_mass:
                x = node_position(grid, node)
                v = before_walls(grid, shapes, substep, env, mask[row, b], grid.num_shapes, x, p)
                v = boundary(grid, node, v)
            at = address(grid, env, node)
            velocity_out[at] = vec4(v[0], v[1], v[2], real(0.0))
            adjoint_out[at] = vec4()

    @wp.kernel(enable_backward=False, module="unique")
    def update_adj(
        grid: Grid,
        shapes: Shapes,
        exchange: Exchange,
        exchange_bar: ExchangeAdjoint,
        substep: int,
        stride: int,
        slot: wp.array(dtype=int),
        blocks: wp.array2d(dtype=int),
        mask: wp.array2d(dtype=int),
        starts: wp.array2d(dtype=int),
        saved: wp.array2d(dtype=vec4),
        # in (adjoint of velocity) and out (adjoint of momentum and mass)
        adjoint: wp.array(dtype=vec4),
        # out
        force_out: wp.array(dtype=vec3),
        torque_out: wp.array(dtype=vec3),
    ):
        row = slot[0]
        span = listed(grid, starts, row, substep)
        for u in range(wp.tid(), (span[1] - span[0]) * 64, stride):
            b = span[0] + (u >> 6)
            packed = blocks[row, b]
            env = packed >> 18
            node = node_in_block(block_corner(packed), u & 63)
            at = address(grid, env, node)
            p = saved[row, b * 64 + (u & 63)]
            p_bar = vec4()
            if p[3] > grid.min_mass:
                x = node_position(grid, node)
                given = adjoint[at]
                active = mask[row, b]
                v = before_walls(grid, shapes, substep, env, active, grid.num_shapes, x, p)
                v_bar = boundary_adj(grid, node, v, vec3(given[0], given[1], given[2]))
                mass_bar = real(0.0)
                for back in range(grid.num_shapes):
                    s = grid.num_shapes - 1 - back
                    if (active >> s & 1) == 1:
                        i = shape_index(grid, substep, env, s)
                        v = before_walls(grid, shapes, substep, env, active, s, x, p)
                        body = int(-1)
                        given_back = vec3()
                        if wp.static(coupled):
                            body = shapes.body[s]
                            if body >= 0:
                                j = body_index(grid, exchange, substep, env, body)
                                moment_bar = exchange_bar.moment[j]
                                lost_bar = exchange_bar.impulse[j] + wp.cross(
                                    moment_bar, x - exchange.centre[j]
                                )
                                change = v - touch(grid, shapes, i, s, x, v)
                                mass_bar += wp.dot(change, lost_bar)
                                given_back = p[3] * lost_bar
                                v_bar -= given_back
                                wp.atomic_add(exchange_bar.centre, j, p[3] * wp.cross(moment_bar, change))
                        contact_bar = contact_adj(
                            v, x, shapes.kind[s], shapes.size[s], shapes.pos[i], shapes.rot[i], shapes.lin[i],
                            shapes.spin[i], grid.softness, grid.tool_friction, grid.contact_law, v_bar,
                        )  # fmt: skip
                        v_bar = contact_bar.v_bar + given_back
                        if body < 0:
                            driven_bar = driven_adj(
                                x,
                                shapes.pos[i],
                                shapes.rot[i],
                                shapes.spin[i],
                                grid.dt,
                                contact_bar.body_v_bar,
                            )
                            k = shape_index(grid, substep + 1, env, s)
                            wp.atomic_add(force_out, i, contact_bar.force + driven_bar.force)
                            wp.atomic_add(torque_out, i, contact_bar.torque + driven_bar.torque)
                            wp.atomic_add(force_out, k, driven_bar.next_force)
                            wp.atomic_add(torque_out, k, driven_bar.next_torque)
                        if wp.static(coupled):
                            if body >= 0:
                                # The point moves at velocity + spin x (x - centre), whatever the orientation.
                                j = body_index(grid, exchange, substep, env, body)
                                centre = exchange.centre[j]
                                point_bar = contact_bar.body_v_bar
                                force = contact_bar.force
                                turn = contact_bar.torque + wp.cross(shapes.pos[i] - centre, force)
                                wp.atomic_add(exchange_bar.velocity, j, point_bar)
                                wp.atomic_add(exchange_bar.spin, j, wp.cross(x - centre, point_bar))
                                wp.atomic_add(
                                    exchange_bar.centre, j, force + wp.cross(exchange.spin[j], point_bar)
                                )
                                wp.atomic_add(exchange_bar.turn, j, turn)
                inv_mass = real(1.0) / p[3]
                v_bar = inv_mass * v_bar
                along = wp.dot(inv_mass * vec3(p[0], p[1], p[2]), v_bar)
                p_bar = vec4(v_bar[0], v_bar[1], v_bar[2], mass_bar - along)
            adjoint[at] = p_bar

    return SimpleNamespace(
        Shapes=Shapes,
        Exchange=Exchange,
        ExchangeAdjoint=ExchangeAdjoint,
        shape_index=shape_index,
        touch=touch,
        begin=begin,
        cull=cull,
        update=update,
        begin_adj=begin_adj,
        restore=restore,
        update_adj=update_adj,
    )
