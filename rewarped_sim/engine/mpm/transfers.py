"""Particles to grid and back: MLS-MPM with APIC, quadratic B-splines, and both hand-written adjoints.

Per substep, with cell size h, D = 4 / h^2, weights w_i of the 27 nearest nodes x_i:

    scatter   F_trial = (I + dt C) F,   (F', tau) = material(F_trial),   A = m C - dt V D tau
              p_i += w_i (m v + A (x_i - x)),   m_i += w_i m
    gather    v' = sum w_i v_i,   C' = D sum w_i v_i (x_i - x)^T,   x' = clamp(x + dt v')

(Hu et al. 2018, Jiang et al. 2015.) Distances are in cells inside the kernels, which keeps float32 sums small.
"""

from collections.abc import Set
from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.atomics import atomic_functions
from rewarped_sim.engine.mpm.grid import grid_functions
from rewarped_sim.engine.mpm.material_table import material_table_functions
from rewarped_sim.engine.mpm.materials import material_functions
from rewarped_sim.engine.mpm.state import PARTICLE_SIZE, C, F, V, X, state_functions
from rewarped_sim.engine.scalars import Scalars

FAULTS = ("left_grid", "inverted", "runaway")
"""What can go wrong with a particle, and is recorded for its environment: it ran into the end of the grid; its
deformation gradient turned inside out; it is not finite, or crosses nearly a cell in one substep."""
LEFT_GRID, INVERTED, RUNAWAY = range(len(FAULTS))
MAX_STEP = 0.9
"""Largest share of a cell that a particle may cross in a substep."""


@cache
def transfer_kernels(scalars: Scalars, laws: Set[int], material_gradient: bool = False) -> SimpleNamespace:
    """Build `scatter`, `gather`, `gather_adj` and `scatter_adj`, one thread per particle; `sum_constants_adj`.

    laws: laws of stress to compile in. material_gradient: whether `scatter_adj` also adds up the adjoints of each
    particle's constants, which `sum_constants_adj` then adds up over the particles of a part.
    """
    real, vec3, vec4, mat33 = scalars.real, scalars.vec3, scalars.vec4, scalars.mat33
    functions = grid_functions(scalars)
    Grid, pack_block = functions.Grid, functions.pack_block
    materials = material_functions(scalars, laws)
    stress, stress_adj = materials.stress, materials.stress_adj
    load_material = material_table_functions(scalars).load
    add4 = atomic_functions(scalars).add4
    layout = state_functions(scalars)
    load_vec3, load_mat33 = layout.load_vec3, layout.load_mat33
    store_vec3, store_mat33 = layout.store_vec3, layout.store_mat33

    @wp.func
    def base_node(grid: Grid, x: vec3):
        """First of the three nodes along each axis. Clamped, so that a non-finite x still addresses its own env."""
        base = wp.vec3i()
        for i in range(3):
            base[i] = wp.clamp(int(wp.floor(x[i] * grid.inv_dx - real(0.5))), 0, grid.n - 3)
        return base

    @wp.func
    def offset(grid: Grid, x: vec3, base: wp.vec3i):
        """Position relative to the base node, in cells: 0.5 to 1.5 along each axis."""
        return x * grid.inv_dx - vec3(real(base[0]), real(base[1]), real(base[2]))

    @wp.func
    def weights(f: real):
        a = real(1.5) - f
        b = f - real(1.0)
        c = f - real(0.5)
        return vec3(real(0.5) * a * a, real(0.75) - b * b, real(0.5) * c * c)

    @wp.func
    def weight_slopes(f: real):
        return vec3(f - real(1.5), real(2.0) - real(2.0) * f, f - real(0.5))

    @wp.func
    def distances(f: real):
        """From the particle to its three nodes along an axis, in cells."""
        return vec3(-f, real(1.0) - f, real(2.0) - f)

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
        blocks: wp.array2d(dtype=int),
        starts: wp.array2d(dtype=int),
        momentum_out: wp.array(dtype=vec4),
        faults_out: wp.array2d(dtype=int),
    ):
        p = first_particle + wp.tid()
        env = p // grid.num_particles
        constants = slot[0] * grid.num_envs + env
        material = load_material(material_table, constants, material_of[p - env * grid.num_particles])
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

        base = base_node(grid, x)
        f = offset(grid, x, base)
        wx = weights(f[0])
        wy = weights(f[1])
        wz = weights(f[2])
        rx = distances(f[0])
        ry = distances(f[1])
        rz = distances(f[2])
        now = stamp[0]
        for a in range(base[0] >> 2, (base[0] + 2 >> 2) + 1):
            for b in range(base[1] >> 2, (base[1] + 2 >> 2) + 1):
                for c in range(base[2] >> 2, (base[2] + 2 >> 2) + 1):
                    block = ((env * grid.blocks + a) * grid.blocks + b) * grid.blocks + c
                    if touched[block] != now and wp.atomic_exch(touched, block, now) != now:
                        place = wp.atomic_add(starts, pool, substep + 1, 1)
                        if place < grid.pool:
                            blocks[pool, place] = pack_block(env, a, b, c)

        # A in units of one cell: A (x_i - x) = (A h) (i - f)
        A = (-grid.dt * material.volume * real(4.0) * grid.inv_dx) * tau + (material.mass * grid.dx) * affine
        mv = material.mass * v
        step = vec3(A[0, 2], A[1, 2], A[2, 2])
        for a in range(3):
            for b in range(3):
                w_ab = wx[a] * wy[b]
                line = ((env * grid.n + base[0] + a) * grid.n + base[1] + b) * grid.n + base[2]
                q = mv + A * vec3(rx[a], ry[b], rz[0])
                for c in range(3):
                    w = w_ab * wz[c]
                    wq = w * q
                    add4(momentum_out, line + c, vec4(wq[0], wq[1], wq[2], w * material.mass))
                    q = q + step

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
        base = base_node(grid, x)
        f = offset(grid, x, base)
        wx = weights(f[0])
        wy = weights(f[1])
        wz = weights(f[2])
        rx = distances(f[0])
        ry = distances(f[1])
        rz = distances(f[2])
        v_new = vec3()
        B = mat33()
        for a in range(3):
            for b in range(3):
                w_ab = wx[a] * wy[b]
                line = ((env * grid.n + base[0] + a) * grid.n + base[1] + b) * grid.n + base[2]
                v0 = velocity[line]
                v1 = velocity[line + 1]
                v2 = velocity[line + 2]
                u0 = wz[0] * vec3(v0[0], v0[1], v0[2])
                u1 = wz[1] * vec3(v1[0], v1[1], v1[2])
                u2 = wz[2] * vec3(v2[0], v2[1], v2[2])
                total = w_ab * (u0 + u1 + u2)
                v_new += total
                along_z = w_ab * (rz[0] * u0 + rz[1] * u1 + rz[2] * u2)
                B += wp.matrix_from_cols(rx[a] * total, ry[b] * total, along_z)
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
        base = base_node(grid, x)
        f = offset(grid, x, base)
        wx = weights(f[0])
        wy = weights(f[1])
        wz = weights(f[2])
        rx = distances(f[0])
        ry = distances(f[1])
        rz = distances(f[2])
        sx = weight_slopes(f[0])
        sy = weight_slopes(f[1])
        sz = weight_slopes(f[2])
        moved = x + grid.dt * load_vec3(state, row + 1, at + V)
        kept = clamp_position(grid, moved)
        x_bar = load_vec3(state_bar, given, at + X)
        for i in range(3):
            if kept[i] != moved[i]:
                x_bar[i] = real(0.0)
        v_bar = load_vec3(state_bar, given, at + V) + grid.dt * x_bar
        B_bar = (real(4.0) * grid.inv_dx) * load_mat33(state_bar, given, at + C)
        step = vec3(B_bar[0, 2], B_bar[1, 2], B_bar[2, 2])
        slope = vec3()
        v_sum = vec3()
        for a in range(3):
            for b in range(3):
                w_ab = wx[a] * wy[b]
                s_ab = sx[a] * wy[b]
                s_ba = wx[a] * sy[b]
                line = ((env * grid.n + base[0] + a) * grid.n + base[1] + b) * grid.n + base[2]
                q = v_bar + B_bar * vec3(rx[a], ry[b], rz[0])
                for c in range(3):
                    w = w_ab * wz[c]
                    node = velocity[line + c]
                    g = vec3(node[0], node[1], node[2])
                    gq = wp.dot(g, q)
                    slope += gq * vec3(s_ab * wz[c], s_ba * wz[c], w_ab * sz[c])
                    v_sum += w * g
                    wq = w * q
                    add4(velocity_bar_out, line + c, vec4(wq[0], wq[1], wq[2], real(0.0)))
                    q = q + step
        slope -= wp.transpose(B_bar) * v_sum
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
        # in (F of row given, x of row wanted) and out (row wanted)
        state_bar: wp.array2d(dtype=real),
        given: int,
        wanted: int,
        # in and out
        constants_bar: wp.array2d(dtype=real),
    ):
        p = first_particle + wp.tid()
        env = p // grid.num_particles
        constants = slot[0] * grid.num_envs + env
        material = load_material(material_table, constants, material_of[p - env * grid.num_particles])
        row = slot[0] * (grid.num_substeps + 1) + substep
        at = p * PARTICLE_SIZE
        x = load_vec3(state, row, at + X)
        v = load_vec3(state, row, at + V)
        affine = load_mat33(state, row, at + C)
        F_old = load_mat33(state, row, at + F)
        motion = wp.identity(3, dtype=real) + grid.dt * affine
        F_trial = motion * F_old
        _, tau = stress(F_trial, material)

        base = base_node(grid, x)
        f = offset(grid, x, base)
        wx = weights(f[0])
        wy = weights(f[1])
        wz = weights(f[2])
        rx = distances(f[0])
        ry = distances(f[1])
        rz = distances(f[2])
        sx = weight_slopes(f[0])
        sy = weight_slopes(f[1])
        sz = weight_slopes(f[2])
        stress_scale = -grid.dt * material.volume * real(4.0) * grid.inv_dx
        A = stress_scale * tau + (material.mass * grid.dx) * affine
        mv = material.mass * v
        step = vec3(A[0, 2], A[1, 2], A[2, 2])
        slope = vec3()
        g_sum = vec3()
        A_bar = mat33()
        mass_bar = real(0.0)
        for a in range(3):
            for b in range(3):
                w_ab = wx[a] * wy[b]
                s_ab = sx[a] * wy[b]
                s_ba = wx[a] * sy[b]
                line = ((env * grid.n + base[0] + a) * grid.n + base[1] + b) * grid.n + base[2]
                q = mv + A * vec3(rx[a], ry[b], rz[0])
                line_sum = vec3()
                along_z = vec3()
                for c in range(3):
                    node = momentum_bar[line + c]
                    g = vec3(node[0], node[1], node[2])
                    gq = wp.dot(g, q) + node[3] * material.mass
                    slope += gq * vec3(s_ab * wz[c], s_ba * wz[c], w_ab * sz[c])
                    wg = (w_ab * wz[c]) * g
                    if wp.static(material_gradient):
                        mass_bar += w_ab * wz[c] * node[3]
                    line_sum += wg
                    along_z += rz[c] * wg
                    q = q + step
                g_sum += line_sum
                A_bar += wp.matrix_from_cols(rx[a] * line_sum, ry[b] * line_sum, along_z)
        slope -= wp.transpose(A) * g_sum

        F_bar = load_mat33(state_bar, given, at + F)
        trial_bar, law_bar = stress_adj(F_trial, material, F_bar, stress_scale * A_bar)
        store_vec3(state_bar, wanted, at + X, load_vec3(state_bar, wanted, at + X) + grid.inv_dx * slope)
        store_vec3(state_bar, wanted, at + V, material.mass * g_sum)
        affine_bar = (material.mass * grid.dx) * A_bar + grid.dt * (trial_bar * wp.transpose(F_old))
        store_mat33(state_bar, wanted, at + C, affine_bar)
        store_mat33(state_bar, wanted, at + F, wp.transpose(motion) * trial_bar)
        if wp.static(material_gradient):
            # Columns of the material table from mu on. Mass enters the momentum, and the sum of the node masses.
            constants_bar[p, 0] += law_bar.mu
            constants_bar[p, 1] += law_bar.lam
            constants_bar[p, 2] += law_bar.yield_stress
            constants_bar[p, 3] += law_bar.friction
            constants_bar[p, 4] += law_bar.cohesion
            constants_bar[p, 5] += stress_scale / material.volume * wp.ddot(tau, A_bar)
            constants_bar[p, 6] += wp.dot(v, g_sum) + grid.dx * wp.ddot(affine, A_bar) + mass_bar

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
        sum_constants_adj=sum_constants_adj,
    )
