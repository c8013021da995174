"""Inverse dynamics as a residual, the mass matrix, and the step in time.

Forward, a substep asks for the accelerations at which the residual of the equations of motion vanishes,

    r(q, q', q'') = ID(q, q', q'') - tau(q, q', q'') - J^T f(q, q') = 0.

r is affine in q'', so q'' = -H^-1 r(q, q', 0) with the mass matrix H. ID is the recursive Newton-Euler algorithm
(Featherstone, Rigid Body Dynamics Algorithms, 2008, table 5.1), H comes from composite rigid bodies (table 6.2) and is
factored as L^T D L along the branches of the tree (table 6.3), without fill-in. Joint springs, dampers and drives are
linearly implicit ("stable PD", Tan et al. 2011): they see q + h (q' + h q'') and q' + h q'', which adds to the diagonal
of H only; but the springs of ball joints see q, since theirs would fill it. Then q' += h q'', q += h q'.

Backward needs no adjoint of the factorisation: where r vanishes, an adjoint b of q'' passes on as that of r at fixed
q'', seeded with -H^-1 b (implicit function theorem; Carpentier and Mansard, RSS 2018). The residual is a sequence of
kernels, from poses to velocities and accelerations, to the forces of inertia, contacts and muscles, and back down the
tree to the joints. Their adjoints are Warp's own: what their loops carry lies in arrays, which the sequence refills.
"""

from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.articulation import tree
from rewarped_sim.engine.articulation.workspace import item_of, workspace_types, world_of
from rewarped_sim.engine.scalars import Scalars

FREE = wp.constant(tree.FREE)
HINGE = wp.constant(tree.HINGE)
SLIDE = wp.constant(tree.SLIDE)
BALL = wp.constant(tree.BALL)


@cache
def dynamics_kernels(scalars: Scalars) -> SimpleNamespace:
    """Build the kernels of a substep but for contacts and muscles; one thread per world."""
    real, vec3, quat = scalars.real, scalars.vec3, scalars.quat
    types = workspace_types(scalars)
    Links, Worlds = types.Links, types.Worlds

    @wp.func
    def basis(axis: int):
        e = vec3()
        e[axis] = real(1.0)
        return e

    @wp.kernel(module="unique")
    def place(first_world: int, links: Links, s: Worlds):
        """Poses of links and motion subspaces of their joints, from the root outwards."""
        w = first_world + wp.tid()
        zero = real(0.0)
        s.origin[0, w] = vec3()
        s.position[0, w] = vec3()
        s.rotation[0, w] = quat(zero, zero, zero, real(1.0))
        for b in range(1, links.count):
            parent = links.parent[b]
            kind = links.kind[b]
            k = links.q_start[b]
            d = links.dof_start[b]
            origin = s.origin[parent, w]
            # The frame at joint position zero.
            q0 = s.rotation[parent, w] * links.offset_quaternion[b]
            p0 = s.position[parent, w] + wp.quat_rotate(s.rotation[parent, w], links.offset_position[b])
            q1 = q0
            p1 = p0
            if kind == FREE:
                origin = vec3(s.q[k, w], s.q[k + 1, w], s.q[k + 2, w])
                p1 = vec3()
                q1 = quat(s.q[k + 3, w], s.q[k + 4, w], s.q[k + 5, w], s.q[k + 6, w])
                for i in range(3):
                    s.turn[d + i, w] = vec3()
                    s.slide[d + i, w] = basis(i)
                    s.turn[d + 3 + i, w] = basis(i)
                    s.slide[d + 3 + i, w] = vec3()
            elif kind == SLIDE:
                axis = wp.quat_rotate(q0, links.axis[b])
                if links.moves_origin[b] != 0:
                    origin = origin + s.q[k, w] * axis
                else:
                    p1 = p0 + s.q[k, w] * axis
                s.turn[d, w] = vec3()
                s.slide[d, w] = axis
            else:
                anchor = p0 + wp.quat_rotate(q0, links.anchor[b])
                if kind == HINGE:
                    axis = wp.quat_rotate(q0, links.axis[b])
                    q1 = q0 * wp.quat_from_axis_angle(links.axis[b], s.q[k, w])
                    s.turn[d, w] = axis
                    s.slide[d, w] = wp.cross(anchor, axis)
                else:
                    q1 = q0 * quat(s.q[k, w], s.q[k + 1, w], s.q[k + 2, w], s.q[k + 3, w])
                    for i in range(3):
                        e = wp.quat_rotate(q0, basis(i))
                        s.turn[d + i, w] = e
                        s.slide[d + i, w] = wp.cross(anchor, e)
                p1 = anchor - wp.quat_rotate(q1, links.anchor[b])
            s.origin[b, w] = origin
            s.position[b, w] = p1
            s.rotation[b, w] = q1

    @wp.func
    def along(subspace: wp.array2d(dtype=vec3), rate: wp.array2d(dtype=real), kind: int, d: int, w: int):
        """What a joint's rates add to one half of a spatial vector."""
        total = rate[d, w] * subspace[d, w]
        if kind == FREE or kind == BALL:
            total = total + rate[d + 1, w] * subspace[d + 1, w] + rate[d + 2, w] * subspace[d + 2, w]
        if kind == FREE:
            total = (
                total
                + rate[d + 3, w] * subspace[d + 3, w]
                + rate[d + 4, w] * subspace[d + 4, w]
                + rate[d + 5, w] * subspace[d + 5, w]
            )
        return total

    @wp.kernel(module="unique")
    def sweep_out(first_world: int, links: Links, s: Worlds):
        """Spatial velocities and accelerations of links, from the root outwards."""
        w = first_world + wp.tid()
        s.spin[0, w] = vec3()
        s.velocity[0, w] = vec3()
        s.spin_rate[0, w] = vec3()
        # Gravity is an acceleration of the world upwards.
        s.acceleration[0, w] = vec3(-s.parameters[0, w], -s.parameters[1, w], -s.parameters[2, w])
        for b in range(1, links.count):
            parent = links.parent[b]
            kind = links.kind[b]
            d = links.dof_start[b]
            spin = s.spin[parent, w]
            velocity = s.velocity[parent, w]
            joint_spin = along(s.turn, s.qd, kind, d, w)
            joint_velocity = along(s.slide, s.qd, kind, d, w)
            s.spin[b, w] = spin + joint_spin
            s.velocity[b, w] = velocity + joint_velocity
            # a = a_parent + S q'' + v_parent x S q'
            s.spin_rate[b, w] = (
                s.spin_rate[parent, w] + along(s.turn, s.qdd, kind, d, w) + wp.cross(spin, joint_spin)
            )
            acceleration = (
                s.acceleration[parent, w]
                + along(s.slide, s.qdd, kind, d, w)
                + wp.cross(spin, joint_velocity)
                + wp.cross(velocity, joint_spin)
            )
            if kind == FREE:
                # q'' is the origin's own acceleration; the spatial one is of the point passing there.
                acceleration = acceleration - wp.cross(joint_spin, joint_velocity)
            s.acceleration[b, w] = acceleration

    @wp.kernel(module="unique")
    def inertial_force(first_world: int, links: Links, s: Worlds):
        """Forces of inertia, I a + v x* I v, about the origin; one thread per link and world."""
        t = wp.tid()
        w = world_of(t, links.count, first_world, s.q.shape[1])
        b = item_of(t, links.count, s.q.shape[1])
        moment = vec3()
        push = vec3()
        if links.mass[b] > real(0.0):
            factor = s.parameters[links.mass_factor[b], w]
            m = factor * links.mass[b]
            rotation = s.rotation[b, w]
            spin = s.spin[b, w]
            velocity = s.velocity[b, w]
            spin_rate = s.spin_rate[b, w]
            c = s.position[b, w] + wp.quat_rotate(rotation, links.com[b])
            momentum = m * (velocity + wp.cross(spin, c))
            force = m * (s.acceleration[b, w] + wp.cross(spin_rate, c))
            own_spin = links.inertia[b] * wp.quat_rotate_inv(rotation, spin)
            own_rate = links.inertia[b] * wp.quat_rotate_inv(rotation, spin_rate)
            turning = factor * wp.quat_rotate(rotation, own_spin) + wp.cross(c, momentum)
            push = force + wp.cross(spin, momentum)
            moment = (
                factor * wp.quat_rotate(rotation, own_rate)
                + wp.cross(c, force)
                + wp.cross(spin, turning)
                + wp.cross(velocity, momentum)
            )
        s.moment[b, w] = moment
        s.push[b, w] = push

    @wp.func
    def implicit_gains(links: Links, s: Worlds, b: int, d: int, w: int):
        """Stiffness and damping that act on a degree of freedom now (the diagonal terms of the residual)."""
        damping = s.parameters[links.damping_at + d, w]
        stiffness = real(0.0)
        kind = links.kind[b]
        if kind == HINGE or kind == SLIDE:
            x = s.q[links.q_start[b], w]
            damping += s.parameters[links.drive_damping_at + d, w]
            stiffness = links.stiffness[d] + s.parameters[links.drive_stiffness_at + d, w]
            if x < links.lower[d] or x > links.upper[d]:
                damping += links.limit_damping[d]
                stiffness += links.limit_stiffness[d]
        return damping, stiffness

    @wp.func
    def spring_force(links: Links, s: Worlds, b: int, d: int, w: int):
        """Force of spring, limit and drive at the present position."""
        kind = links.kind[b]
        force = real(0.0)
        if kind == HINGE or kind == SLIDE:
            x = s.q[links.q_start[b], w]
            force = links.stiffness[d] * (links.rest[d] - x)
            force += s.parameters[links.drive_stiffness_at + d, w] * (s.target[d, w] - x)
            if x < links.lower[d]:
                force += links.limit_stiffness[d] * (links.lower[d] - x)
            if x > links.upper[d]:
                force += links.limit_stiffness[d] * (links.upper[d] - x)
        if kind == BALL:
            force = -links.stiffness[d] * s.q[links.q_start[b] + d - links.dof_start[b], w]
        return force

    @wp.kernel(module="unique")
    def sweep_in(first_world: int, links: Links, s: Worlds):
        """Forces of links together with all that they carry, from the tips inwards."""
        w = first_world + wp.tid()
        for i in range(1, links.count):
            b = links.count - i
            wp.atomic_add(s.moment, links.parent[b], w, s.moment[b, w])
            wp.atomic_add(s.push, links.parent[b], w, s.push[b, w])

    @wp.kernel(module="unique")
    def residual(first_world: int, links: Links, s: Worlds):
        """What is left of the equation of motion of each degree of freedom; one thread per dof and world."""
        t = wp.tid()
        w = world_of(t, links.num_dofs, first_world, s.q.shape[1])
        d = item_of(t, links.num_dofs, s.q.shape[1])
        b = links.dof_link[d]
        damping, stiffness = implicit_gains(links, s, b, d, w)
        qdd = s.qdd[d, w]
        s.residual[d, w] = (
            wp.dot(s.turn[d, w], s.moment[b, w])
            + wp.dot(s.slide[d, w], s.push[b, w])
            + s.parameters[links.armature_at + d, w] * qdd
            + (damping + links.dt * stiffness) * (s.qd[d, w] + links.dt * qdd)
            - spring_force(links, s, b, d, w)
            - s.force[d, w]
        )

    return SimpleNamespace(
        place=place,
        sweep_out=sweep_out,
        inertial_force=inertial_force,
        sweep_in=sweep_in,
        residual=residual,
        implicit_gains=implicit_gains,
    )
