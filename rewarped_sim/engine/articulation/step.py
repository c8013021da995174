"""The step in time and its adjoint: mass matrix, factorisation, solve, integration. See `dynamics`.

All by hand, one thread per world. `advance` takes the residual at zero acceleration; `advance_adj` leaves the seed of
the residual's adjoint. A trajectory's rows hold, per substep, the state before it, and per substep of a slot the
acceleration and the factor of the mass matrix.
"""

from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.articulation.dynamics import BALL, FREE, dynamics_kernels
from rewarped_sim.engine.articulation.workspace import workspace_types
from rewarped_sim.engine.scalars import Scalars


@cache
def step_kernels(scalars: Scalars) -> SimpleNamespace:
    """Build `begin`, `advance`, `begin_adj` and `advance_adj`."""
    real, vec3, quat, mat33 = scalars.real, scalars.vec3, scalars.quat, scalars.mat33
    types = workspace_types(scalars)
    Links, Worlds = types.Links, types.Worlds
    implicit_gains = dynamics_kernels(scalars).implicit_gains

    @wp.struct
    class Composite:
        """Mass, first moment and second moment about the tree's origin of a link and all it carries, [link, world]."""

        mass: wp.array2d(dtype=real)
        first: wp.array2d(dtype=vec3)
        second: wp.array2d(dtype=mat33)

    @wp.struct
    class Record:
        """A trajectory: states by row, accelerations and factors by slot and substep; [row, k, world]."""

        num_substeps: int
        q: wp.array3d(dtype=real)
        qd: wp.array3d(dtype=real)
        qdd: wp.array3d(dtype=real)
        factor: wp.array3d(dtype=real)

    @wp.func
    def compose_inertia(links: Links, s: Worlds, inertia: Composite, w: int):
        for b in range(1, links.count):
            share = s.parameters[links.mass_factor[b], w]
            m = share * links.mass[b]
            r = wp.quat_to_matrix(s.rotation[b, w])
            c = s.position[b, w] + r * links.com[b]
            inertia.mass[b, w] = m
            inertia.first[b, w] = m * c
            inertia.second[b, w] = share * (r * links.inertia[b] * wp.transpose(r)) + m * (
                wp.dot(c, c) * wp.identity(n=3, dtype=real) - wp.outer(c, c)
            )
        for i in range(1, links.count):
            b = links.count - i
            p = links.parent[b]
            if p > 0:
                inertia.mass[p, w] = inertia.mass[p, w] + inertia.mass[b, w]
                inertia.first[p, w] = inertia.first[p, w] + inertia.first[b, w]
                inertia.second[p, w] = inertia.second[p, w] + inertia.second[b, w]

    @wp.func
    def mass_matrix(links: Links, s: Worlds, inertia: Composite, rows: Record, at: int, w: int):
        for d in range(links.num_dofs):
            b = links.dof_link[d]
            turn = s.turn[d, w]
            slide = s.slide[d, w]
            first = inertia.first[b, w]
            push = inertia.mass[b, w] * slide + wp.cross(turn, first)
            moment = inertia.second[b, w] * turn + wp.cross(first, slide)
            row = links.row[d]
            j = int(d)
            while j >= 0:
                entry = wp.dot(s.turn[j, w], moment) + wp.dot(s.slide[j, w], push)
                rows.factor[at, row + links.depth[j], w] = entry
                j = links.dof_parent[j]
            damping, stiffness = implicit_gains(links, s, b, d, w)
            own = row + links.depth[d]
            rows.factor[at, own, w] = (
                rows.factor[at, own, w]
                + s.parameters[links.armature_at + d, w]
                + links.dt * (damping + links.dt * stiffness)
            )

    @wp.func
    def factorize(links: Links, rows: Record, at: int, w: int):
        """H = L^T D L in place, along the branches."""
        for kk in range(links.num_dofs):
            k = links.num_dofs - 1 - kk
            row_k = links.row[k]
            pivot = real(1.0) / rows.factor[at, row_k + links.depth[k], w]
            i = links.dof_parent[k]
            while i >= 0:
                row_i = links.row[i]
                depth_i = links.depth[i]
                a = rows.factor[at, row_k + depth_i, w] * pivot
                for depth in range(depth_i + 1):
                    rows.factor[at, row_i + depth, w] = (
                        rows.factor[at, row_i + depth, w] - a * rows.factor[at, row_k + depth, w]
                    )
                rows.factor[at, row_k + depth_i, w] = a
                i = links.dof_parent[i]

    @wp.func
    def solve(links: Links, rows: Record, at: int, x: wp.array2d(dtype=real), w: int):
        """Replace x by H^-1 x, with the factor of `factorize`."""
        for ii in range(links.num_dofs):
            i = links.num_dofs - 1 - ii
            xi = x[i, w]
            row = links.row[i]
            j = links.dof_parent[i]
            while j >= 0:
                x[j, w] = x[j, w] - rows.factor[at, row + links.depth[j], w] * xi
                j = links.dof_parent[j]
        for i in range(links.num_dofs):
            row = links.row[i]
            value = x[i, w] / rows.factor[at, row + links.depth[i], w]
            j = links.dof_parent[i]
            while j >= 0:
                value -= rows.factor[at, row + links.depth[j], w] * x[j, w]
                j = links.dof_parent[j]
            x[i, w] = value

    @wp.func
    def angular_start(links: Links, b: int):
        """Where a free or ball joint has its angular velocity and its quaternion: first dof, first coordinate."""
        d = links.dof_start[b]
        k = links.q_start[b]
        if links.kind[b] == FREE:
            d += 3
            k += 3
        return d, k

    @wp.kernel(enable_backward=False, module="unique")
    def begin(
        first_world: int,
        links: Links,
        num_activations: int,
        num_parameters: int,
        slot: wp.array(dtype=int),
        force: wp.array3d(dtype=real),
        target: wp.array3d(dtype=real),
        activation: wp.array3d(dtype=real),
        parameters: wp.array3d(dtype=real),
        rows: Record,
        s: Worlds,
    ):
        """Load a control step's inputs, and its first state."""
        w = first_world + wp.tid()
        row = slot[0] * (rows.num_substeps + 1)
        for k in range(links.num_q):
            s.q[k, w] = rows.q[row, k, w]
        for d in range(links.num_dofs):
            s.qd[d, w] = rows.qd[row, d, w]
            s.qdd[d, w] = real(0.0)
            s.force[d, w] = force[slot[0], d, w]
            s.target[d, w] = target[slot[0], d, w]
        for i in range(num_activations):
            s.activation[i, w] = activation[slot[0], i, w]
        for i in range(num_parameters):
            s.parameters[i, w] = parameters[slot[0], i, w]

    @wp.kernel(enable_backward=False, module="unique")
    def advance(
        first_world: int,
        n: int,
        links: Links,
        slot: wp.array(dtype=int),
        inertia: Composite,
        rows: Record,
        s: Worlds,
    ):
        """From the residual at zero acceleration to the next state, in the workspace and in its row."""
        w = first_world + wp.tid()
        at = slot[0] * rows.num_substeps + n
        row = slot[0] * (rows.num_substeps + 1) + n + 1
        compose_inertia(links, s, inertia, w)
        mass_matrix(links, s, inertia, rows, at, w)
        factorize(links, rows, at, w)
        for d in range(links.num_dofs):
            s.residual[d, w] = -s.residual[d, w]
        solve(links, rows, at, s.residual, w)
        for d in range(links.num_dofs):
            rows.qdd[at, d, w] = s.residual[d, w]
            qd = s.qd[d, w] + links.dt * s.residual[d, w]
            s.qd[d, w] = qd
            rows.qd[row, d, w] = qd
        for b in range(1, links.count):
            kind = links.kind[b]
            k = links.q_start[b]
            d = links.dof_start[b]
            if kind == FREE or kind == BALL:
                da, ka = angular_start(links, b)
                if kind == FREE:
                    for j in range(3):
                        s.q[k + j, w] = s.q[k + j, w] + links.dt * s.qd[d + j, w]
                q = quat(s.q[ka, w], s.q[ka + 1, w], s.q[ka + 2, w], s.q[ka + 3, w])
                spin = quat(s.qd[da, w], s.qd[da + 1, w], s.qd[da + 2, w], real(0.0))
                q = wp.normalize(q + (real(0.5) * links.dt) * (spin * q))
                for j in range(4):
                    s.q[ka + j, w] = q[j]
            else:
                s.q[k, w] = s.q[k, w] + links.dt * s.qd[d, w]
        for k in range(links.num_q):
            rows.q[row, k, w] = s.q[k, w]

    @wp.func
    def clear_scratch(links: Links, bar: Worlds, w: int):
        """Clear the adjoints of what a substep computes anew."""
        zero = real(0.0)
        for b in range(links.count):
            bar.origin[b, w] = vec3()
            bar.position[b, w] = vec3()
            bar.rotation[b, w] = quat(zero, zero, zero, zero)
            bar.spin[b, w] = vec3()
            bar.velocity[b, w] = vec3()
            bar.spin_rate[b, w] = vec3()
            bar.acceleration[b, w] = vec3()
            bar.moment[b, w] = vec3()
            bar.push[b, w] = vec3()
        for d in range(links.num_dofs):
            bar.turn[d, w] = vec3()
            bar.slide[d, w] = vec3()
            bar.qdd[d, w] = zero

    @wp.kernel(enable_backward=False, module="unique")
    def advance_adj(
        first_world: int,
        n: int,
        links: Links,
        slot: wp.array(dtype=int),
        rows: Record,
        s: Worlds,
        bar: Worlds,
    ):
        """Load substep n; adjoint of its next state -> direct part of that of its state, and seed of the residual's."""
        w = first_world + wp.tid()
        at = slot[0] * rows.num_substeps + n
        row = slot[0] * (rows.num_substeps + 1) + n
        half_dt = real(0.5) * links.dt
        clear_scratch(links, bar, w)
        for k in range(links.num_q):
            s.q[k, w] = rows.q[row, k, w]
        for d in range(links.num_dofs):
            s.qd[d, w] = rows.qd[row, d, w]
            s.qdd[d, w] = rows.qdd[at, d, w]
        for b in range(1, links.count):
            kind = links.kind[b]
            k = links.q_start[b]
            d = links.dof_start[b]
            if kind == FREE or kind == BALL:
                da, ka = angular_start(links, b)
                if kind == FREE:
                    for j in range(3):
                        bar.qd[d + j, w] = bar.qd[d + j, w] + links.dt * bar.q[k + j, w]
                q = quat(s.q[ka, w], s.q[ka + 1, w], s.q[ka + 2, w], s.q[ka + 3, w])
                spin = quat(
                    s.qd[da, w] + links.dt * s.qdd[da, w],
                    s.qd[da + 1, w] + links.dt * s.qdd[da + 1, w],
                    s.qd[da + 2, w] + links.dt * s.qdd[da + 2, w],
                    real(0.0),
                )
                moved = q + half_dt * (spin * q)
                length = wp.length(moved)
                unit = moved / length
                given = quat(bar.q[ka, w], bar.q[ka + 1, w], bar.q[ka + 2, w], bar.q[ka + 3, w])
                moved_bar = (given - wp.dot(unit, given) * unit) / length
                # (spin, 0) q is linear in both: its transposes are a product with -spin and one with q's conjugate.
                q_bar = moved_bar - half_dt * (spin * moved_bar)
                spin_bar = half_dt * (moved_bar * wp.quat_inverse(q))
                for j in range(4):
                    bar.q[ka + j, w] = q_bar[j]
                for j in range(3):
                    bar.qd[da + j, w] = bar.qd[da + j, w] + spin_bar[j]
            else:
                bar.qd[d, w] = bar.qd[d, w] + links.dt * bar.q[k, w]
        for d in range(links.num_dofs):
            bar.residual[d, w] = -links.dt * bar.qd[d, w]
        solve(links, rows, at, bar.residual, w)

    @wp.kernel(enable_backward=False, module="unique")
    def begin_adj(
        first_world: int,
        links: Links,
        num_activations: int,
        num_parameters: int,
        slot: wp.array(dtype=int),
        force: wp.array3d(dtype=real),
        target: wp.array3d(dtype=real),
        activation: wp.array3d(dtype=real),
        parameters: wp.array3d(dtype=real),
        s: Worlds,
        bar: Worlds,
    ):
        """Load a control step's inputs again, and clear their adjoints."""
        w = first_world + wp.tid()
        zero = real(0.0)
        for d in range(links.num_dofs):
            s.force[d, w] = force[slot[0], d, w]
            s.target[d, w] = target[slot[0], d, w]
            bar.force[d, w] = zero
            bar.target[d, w] = zero
        for i in range(num_activations):
            s.activation[i, w] = activation[slot[0], i, w]
            bar.activation[i, w] = zero
        for i in range(num_parameters):
            s.parameters[i, w] = parameters[slot[0], i, w]
            bar.parameters[i, w] = zero

    return SimpleNamespace(
        Composite=Composite,
        Record=Record,
        begin=begin,
        begin_adj=begin_adj,
        advance=advance,
        advance_adj=advance_adj,
    )
