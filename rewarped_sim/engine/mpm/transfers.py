"""Particles to grid and back: MLS-MPM with APIC, quadratic B-splines, and both hand-written adjoints.

Per substep, with cell size h, D = 4 / h^2, weights w_i of the 27 nearest nodes x_i:

    scatter   F_trial = (I + dt C) F,   (F', tau) = material(F_trial),   A = m C - dt V D tau
              p_i += w_i (m v + A (x_i - x)),   m_i += w_i m
    gather    v' = sum w_i v_i,   C' = D sum w_i v_i (x_i - x)^T,   x' = clamp(x + dt v')

(Hu et al. 2018, Jiang et al. 2015.) See `stencil` for how the sums over nodes are taken.
"""

from collections.abc import Set
from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.mpm.grid import CROWDED, INVERTED, LEFT_GRID, RUNAWAY, grid_functions
from rewarped_sim.engine.mpm.material_table import material_table_functions
from rewarped_sim.engine.mpm.materials import material_functions
from rewarped_sim.engine.mpm.state import PARTICLE_SIZE, C, F, V, X, state_functions
from rewarped_sim.engine.mpm.stencil import stencil_functions
from rewarped_sim.engine.scalars import Scalars

MAX_STEP = 0.9
"""Largest share of a cell that a particle may cross in a substep."""


@cache
def transfer_kernels(scalars: Scalars, laws: Set[int], material_gradient: bool = False) -> SimpleNamespace:
    """Build `scatter`, `gather`, and `gather_adj`, `scatter_adj`, `strain_adj`: one thread per particle.

    laws: laws of stress to compile in. material_gradient: whether the last two also add up the adjoints of each
    particle's constants, which `sum_constants_adj` then adds up over the particles of a part.
    """
    real, vec3, vec4, mat33 = scalars.real, scalars.vec3, scalars.vec4, scalars.mat33
    functions = grid_functions(scalars)
    Grid, pack_block = functions.Grid, functions.pack_block
    stencils = stencil_functions(scalars)
    Stencil, stencil_of = stencils.Stencil, stencils.stencil_of
    sum_nodes, add_nodes = stencils.sum_nodes, stencils.add_nodes
    mat74 = wp.types.matrix(shape=(7, 4), dtype=real)
    materials = material_functions(scalars, laws)
    stress, stress_adj = materials.stress, materials.stress_adj
    load_material = material_table_functions(scalars).load
    layout = state_functions(scalars)
    load_vec3, load_mat33 = layout.load_vec3, layout.load_mat33
    store_vec3, store_mat33 = layout.store_vec3, layout.store_mat33

    @wp.func
    def with_fourth(value: vec3, fourth: real):
        return vec4(value[0], value[1], value[2], fourth)

    @wp.func
    def column(A: mat33, j: int):
        """What a linear field gains from one node to the next along an axis."""
        return vec4(A[0, j], A[1, j], A[2, j], real(0.0))

    @wp.func
    def first_of(field: vec3, A: mat33, at_nodes: Stencil):
        """A linear field, `field` at the particle, at the first of its nodes."""
        return field + A * vec3(at_nodes.rx[0], at_nodes.ry[0], at_nodes.rz[0])

    @wp.func
    def moments(sums: mat74):
        """The matrix sum w g r^T of `sum_nodes`."""
        result = mat33()
        for i in range(3):
            for j in range(3):
                result[i, j] = sums[j + 1, i]
        return result

    @wp.func
    def slopes(sums: mat74):
        """The vector sum (g . q) grad w of `sum_nodes`."""
        result = vec3()
        for i in range(3):
            result[i] = sums[i + 4, 0] + sums[i + 4, 1] + sums[i + 4, 2] + sums[i + 4, 3]
        return result

    @wp.func
    def clamp_position(grid: Grid, x: vec3):
        # All three nodes of every axis must lie on the grid, which has no node at its upper end.
        low = real(0.5) * grid.dx
        high = (real(grid.n) - real(1.5)) * grid.dx
        return vec3(wp.clamp(x[0], low, high), wp.clamp(x[1], low, high), wp.clamp(x[2], low, high))

    @wp.kernel(enable_backward=False, module="unique")
    def scatter(
        # model
        grid: Grid,
        first_particle: int,
        substep: int,
        material_of: wp.array(dtype=int),
        material_table: wp.array3d(dtype=real),
        # in
        slot: wp.array(dtype=int),
        stamp: wp.array(dtype=int),
        # in (row n) and out (F of row n + 1)
        state: wp.array2d(dtype=real),
        # out
        touched: wp.array(dtype=int),
        asked: wp.array(dtype=int),
        blocks: wp.array2d(dtype=int),
        starts: wp.array2d(dtype=int),
        momentum_out: wp.array(dtype=vec4),
        faults_out: wp.array2d(dtype=int),
    ):
        p = first_particle + wp.tid()
        env = p // grid.num_particles
        slot_env = slot[0] * grid.num_envs + env
        material = load_material(material_table, slot_env, material_of[p - env * grid.num_particles])
        pool = slot[0]
        row = pool * (grid.num_substeps + 1) + substep
        at = p * PARTICLE_SIZE
        x = load_vec3(state, row, at + X)
        v = load_vec3(state, row, at + V)
        affine = load_mat33(state, row, at + C)
        F_old = load_mat33(state, row, at + F)
        F_trial = F_old + grid.dt * (affine * F_old)
        F_new, tau = stress(F_trial, material)
        store_mat33(state, row + 1, at + F, F_new)
        if wp.determinant(F_trial) <= real(0.0):
            faults_out[env, INVERTED] = 1

        at_nodes = stencil_of(grid, env, x)
        base = at_nodes.base
        now = stamp[0]
        for a in range(base[0] >> 2, (base[0] + 2 >> 2) + 1):
            for b in range(base[1] >> 2, (base[1] + 2 >> 2) + 1):
                for c in range(base[2] >> 2, (base[2] + 2 >> 2) + 1):
                    block = ((env * grid.blocks + a) * grid.blocks + b) * grid.blocks + c
                    if touched[block] != now and wp.atomic_exch(touched, block, now) != now:
                        # An env may borrow of what others leave, but not to fly apart.
                        fits = wp.atomic_add(asked, slot_env, 1) < grid.share
                        if fits or faults_out[env, RUNAWAY] == 0:
                            place = wp.atomic_add(starts, pool, substep + 1, 1)
                            if place < grid.pool:
                                blocks[pool, place] = pack_block(env, a, b, c)
                            else:
                                faults_out[env, CROWDED] = 1

        # A in units of one cell: A (x_i - x) = (A h) (i - f). The fourth component carries the mass.
        A = (-grid.dt * material.volume * real(4.0) * grid.inv_dx) * tau + (material.mass * grid.dx) * affine
        mv = material.mass * v
        q = with_fourth(first_of(mv, A, at_nodes), material.mass)
        add_nodes(momentum_out, grid.n, at_nodes, q, column(A, 0), column(A, 1), column(A, 2))

    @wp.kernel(enable_backward=False, module="unique")
    def gather(
        grid: Grid,
        first_particle: int,
        substep: int,
        slot: wp.array(dtype=int),
        velocity: wp.array(dtype=vec4),
        # in (row n) and out (x, v, C of row n + 1)
        state: wp.array2d(dtype=real),
        # out
        faults_out: wp.array2d(dtype=int),
    ):
        p = first_particle + wp.tid()
        env = p // grid.num_particles
        row = slot[0] * (grid.num_substeps + 1) + substep
        at = p * PARTICLE_SIZE
        x = load_vec3(state, row, at + X)
        at_nodes = stencil_of(grid, env, x)
        sums = sum_nodes(velocity, grid.n, at_nodes, vec4(), vec4(), vec4(), vec4())
        v_new = vec3(sums[0, 0], sums[0, 1], sums[0, 2])
        B = moments(sums)
        store_vec3(state, row + 1, at + V, v_new)
        store_mat33(state, row + 1, at + C, (real(4.0) * grid.inv_dx) * B)
        moved = x + grid.dt * v_new
        kept = clamp_position(grid, moved)
        store_vec3(state, row + 1, at + X, kept)
        if wp.length_sq(kept - moved) > real(0.0):
            faults_out[env, LEFT_GRID] = 1
        if not wp.length_sq(v_new) <= grid.max_speed_sq:  # true of a NaN, too
            faults_out[env, RUNAWAY] = 1

    @wp.kernel(enable_backward=False, module="unique")
    def gather_adj(
        grid: Grid,
        first_particle: int,
        substep: int,
        slot: wp.array(dtype=int),
        state: wp.array2d(dtype=real),
        velocity: wp.array(dtype=vec4),
        # in (row given) and out (x of row wanted)
        state_bar: wp.array2d(dtype=real),
        given: int,
        wanted: int,
        # out
        velocity_bar_out: wp.array(dtype=vec4),
    ):
        p = first_particle + wp.tid()
        env = p // grid.num_particles
        row = slot[0] * (grid.num_substeps + 1) + substep
        at = p * PARTICLE_SIZE
        x = load_vec3(state, row, at + X)
        at_nodes = stencil_of(grid, env, x)
        moved = x + grid.dt * load_vec3(state, row + 1, at + V)
        kept = clamp_position(grid, moved)
        x_bar = load_vec3(state_bar, given, at + X)
        for i in range(3):
            if kept[i] != moved[i]:
                x_bar[i] = real(0.0)
        v_bar = load_vec3(state_bar, given, at + V) + grid.dt * x_bar
        B_bar = (real(4.0) * grid.inv_dx) * load_mat33(state_bar, given, at + C)
        q = with_fourth(first_of(v_bar, B_bar, at_nodes), real(0.0))
        qx = column(B_bar, 0)
        qy = column(B_bar, 1)
        qz = column(B_bar, 2)
        sums = sum_nodes(velocity, grid.n, at_nodes, q, qx, qy, qz)
        add_nodes(velocity_bar_out, grid.n, at_nodes, q, qx, qy, qz)
        slope = slopes(sums) - wp.transpose(B_bar) * vec3(sums[0, 0], sums[0, 1], sums[0, 2])
        store_vec3(state_bar, wanted, at + X, x_bar + grid.inv_dx * slope)

    @wp.kernel(enable_backward=False, module="unique")
    def scatter_adj(
        grid: Grid,
        first_particle: int,
        substep: int,
        material_of: wp.array(dtype=int),
        material_table: wp.array3d(dtype=real),
        slot: wp.array(dtype=int),
        state: wp.array2d(dtype=real),
        momentum_bar: wp.array(dtype=vec4),
        # in (x) and out (x, v, and in place of C the adjoint of A)
        state_bar: wp.array2d(dtype=real),
        wanted: int,
        # in and out
        constants_bar: wp.array2d(dtype=real),
    ):
        p = first_particle + wp.tid()
        env = p // grid.num_particles
        slot_env = slot[0] * grid.num_envs + env
        material = load_material(material_table, slot_env, material_of[p - env * grid.num_particles])
        row = slot[0] * (grid.num_substeps + 1) + substep
        at = p * PARTICLE_SIZE
        x = load_vec3(state, row, at + X)
        v = load_vec3(state, row, at + V)
        affine = load_mat33(state, row, at + C)
        F_old = load_mat33(state, row, at + F)
        _, tau = stress(F_old + grid.dt * (affine * F_old), material)

        at_nodes = stencil_of(grid, env, x)
        stress_scale = -grid.dt * material.volume * real(4.0) * grid.inv_dx
        A = stress_scale * tau + (material.mass * grid.dx) * affine
        mv = material.mass * v
        q = with_fourth(first_of(mv, A, at_nodes), material.mass)
        sums = sum_nodes(momentum_bar, grid.n, at_nodes, q, column(A, 0), column(A, 1), column(A, 2))
        g_sum = vec3(sums[0, 0], sums[0, 1], sums[0, 2])
        A_bar = moments(sums)
        slope = slopes(sums) - wp.transpose(A) * g_sum

        store_vec3(state_bar, wanted, at + X, load_vec3(state_bar, wanted, at + X) + grid.inv_dx * slope)
        store_vec3(state_bar, wanted, at + V, material.mass * g_sum)
        store_mat33(state_bar, wanted, at + C, A_bar)
        if wp.static(material_gradient):
            # Columns of the material table from mu on. Mass enters the momentum, and the sum of the node masses.
            constants_bar[p, 5] += stress_scale / material.volume * wp.ddot(tau, A_bar)
            constants_bar[p, 6] += wp.dot(v, g_sum) + grid.dx * wp.ddot(affine, A_bar) + sums[0, 3]

    @wp.kernel(enable_backward=False, module="unique")
    def strain_adj(
        grid: Grid,
        first_particle: int,
        substep: int,
        material_of: wp.array(dtype=int),
        material_table: wp.array3d(dtype=real),
        slot: wp.array(dtype=int),
        state: wp.array2d(dtype=real),
        # in (F of row given, the adjoint of A of row wanted) and out (C and F of row wanted)
        state_bar: wp.array2d(dtype=real),
        given: int,
        wanted: int,
        # in and out
        constants_bar: wp.array2d(dtype=real),
    ):
        # Apart from `scatter_adj`, because the two together need more registers than a GPU has.
        p = first_particle + wp.tid()
        env = p // grid.num_particles
        slot_env = slot[0] * grid.num_envs + env
        material = load_material(material_table, slot_env, material_of[p - env * grid.num_particles])
        row = slot[0] * (grid.num_substeps + 1) + substep
        at = p * PARTICLE_SIZE
        F_old = load_mat33(state, row, at + F)
        motion = wp.identity(3, dtype=real) + grid.dt * load_mat33(state, row, at + C)
        A_bar = load_mat33(state_bar, wanted, at + C)
        tau_bar = (-grid.dt * material.volume * real(4.0) * grid.inv_dx) * A_bar
        F_bar = load_mat33(state_bar, given, at + F)
        trial_bar, law_bar = stress_adj(motion * F_old, material, F_bar, tau_bar)
        affine_bar = (material.mass * grid.dx) * A_bar + grid.dt * (trial_bar * wp.transpose(F_old))
        store_mat33(state_bar, wanted, at + C, affine_bar)
        store_mat33(state_bar, wanted, at + F, wp.transpose(motion) * trial_bar)
        if wp.static(material_gradient):
            constants_bar[p, 0] += law_bar.mu
            constants_bar[p, 1] += law_bar.lam
            constants_bar[p, 2] += law_bar.yield_stress
            constants_bar[p, 3] += law_bar.friction
            constants_bar[p, 4] += law_bar.cohesion

    @wp.kernel(enable_backward=False, module="unique")
    def sum_constants_adj(
        first_env: int,
        num_particles: int,
        material_of: wp.array(dtype=int),
        # in, cleared for the next control step
        constants_bar: wp.array2d(dtype=real),
        # out
        material_bar_out: wp.array3d(dtype=real),
    ):
        # One thread per env, part and constant keeps the sum in one order, whatever the device.
        local_env, part, constant = wp.tid()
        env = first_env + local_env
        total = real(0.0)
        for i in range(num_particles):
            if material_of[i] == part:
                total += constants_bar[env * num_particles + i, constant]
                constants_bar[env * num_particles + i, constant] = real(0.0)
        material_bar_out[env, part, constant + 1] = total

    return SimpleNamespace(
        scatter=scatter,
        gather=gather,
        gather_adj=gather_adj,
        scatter_adj=scatter_adj,
        strain_adj=strain_adj,
        sum_constants_adj=sum_constants_adj,
    )
