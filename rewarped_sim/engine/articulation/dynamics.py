"""Inverse dynamics as a residual, the mass matrix, and the step in time.

Forward, a substep asks for the accelerations at which the residual of the equations of motion vanishes,

    r(q, q', q'') = ID(q, q', q'') - tau(q, q', q'') - J^T f(q, q') = 0.

r is affine in q'', so q'' = -H^-1 r(q, q', 0) with the mass matrix H. ID is the recursive Newton-Euler algorithm
(Featherstone, Rigid Body Dynamics Algorithms, 2008, table 5.1), H comes from composite rigid bodies (table 6.2) and is
factored as L^T D L along the branches of the tree (table 6.3), without fill-in. Joint springs, dampers and drives are
linearly implicit ("stable PD", Tan et al. 2011): they see q + h (q' + h q'') and q' + h q'', which adds to the diagonal
of H only. Then q' += h q'', q += h q'.

Backward needs no adjoint of the factorisation: where r vanishes, an adjoint b of q'' passes on as that of r at fixed
q'', seeded with -H^-1 b (implicit function theorem; Carpentier and Mansard, RSS 2018). The residual is three kernels,
`sweep_out` (poses, velocities, accelerations, inertial forces), contacts and muscles, `sweep_in` (forces down to the
joints), and their adjoints are Warp's own: what its loops carry lies in arrays, which a call of the three refills.
"""

from functools import cache
from types import SimpleNamespace

import warp as wp

from rewarped_sim.engine.articulation import tree
from rewarped_sim.engine.articulation.workspace import workspace_types
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
    def sweep_out(first_world: int, links: Links, s: Worlds):
        w = first_world + wp.tid()
        zero = real(0.0)
        s.origin[0, w] = vec3()
        s.position[0, w] = vec3()
        s.rotation[0, w] = quat(zero, zero, zero, real(1.0))
        s.spin[0, w] = vec3()
        s.velocity[0, w] = vec3()
        s.spin_rate[0, w] = vec3()
        # Gravity is an acceleration of the world upwards.
        s.acceleration[0, w] = vec3(-s.parameters[0, w], -s.parameters[1, w], -s.parameters[2, w])
        s.moment[0, w] = vec3()
        s.push[0, w] = vec3()
        for b in range(1, links.count):
            parent = links.parent[b]
            kind = links.kind[b]
            k = links.q_start[b]
            d = links.dof_start[b]
            origin = s.origin[parent, w]
            wp_ = s.spin[parent, w]
            vp = s.velocity[parent, w]
            # The frame at joint position zero.
            q0 = s.rotation[parent, w] * links.offset_quaternion[b]
            p0 = s.position[parent, w] + wp.quat_rotate(s.rotation[parent, w], links.offset_position[b])
            q1 = q0
            p1 = p0
            joint_spin = vec3()
            joint_velocity = vec3()
            joint_spin_rate = vec3()
            joint_acceleration = vec3()
            if kind == FREE:
                origin = vec3(s.q[k, w], s.q[k + 1, w], s.q[k + 2, w])
                p1 = vec3()
                q1 = quat(s.q[k + 3, w], s.q[k + 4, w], s.q[k + 5, w], s.q[k + 6, w])
                joint_velocity = vec3(s.qd[d, w], s.qd[d + 1, w], s.qd[d + 2, w])
                joint_spin = vec3(s.qd[d + 3, w], s.qd[d + 4, w], s.qd[d + 5, w])
                joint_spin_rate = vec3(s.qdd[d + 3, w], s.qdd[d + 4, w], s.qdd[d + 5, w])
                # q'' is the origin's own acceleration; the spatial one is of the point passing there.
                joint_acceleration = vec3(s.qdd[d, w], s.qdd[d + 1, w], s.qdd[d + 2, w]) - wp.cross(
                    joint_spin, joint_velocity
                )
            elif kind == SLIDE:
                axis = wp.quat_rotate(q0, links.axis[b])
                if links.moves_origin[b] != 0:
                    origin = origin + s.q[k, w] * axis
                else:
                    p1 = p0 + s.q[k, w] * axis
                s.turn[d, w] = vec3()
                s.slide[d, w] = axis
                joint_velocity = s.qd[d, w] * axis
                joint_acceleration = s.qdd[d, w] * axis
            else:
                anchor = p0 + wp.quat_rotate(q0, links.anchor[b])
                if kind == HINGE:
                    axis = wp.quat_rotate(q0, links.axis[b])
                    lever = wp.cross(anchor, axis)
                    q1 = q0 * wp.quat_from_axis_angle(links.axis[b], s.q[k, w])
                    s.turn[d, w] = axis
                    s.slide[d, w] = lever
                    joint_spin = s.qd[d, w] * axis
                    joint_velocity = s.qd[d, w] * lever
                    joint_spin_rate = s.qdd[d, w] * axis
                    joint_acceleration = s.qdd[d, w] * lever
                else:
                    q1 = q0 * quat(s.q[k, w], s.q[k + 1, w], s.q[k + 2, w], s.q[k + 3, w])
                    joint_spin = wp.quat_rotate(q0, vec3(s.qd[d, w], s.qd[d + 1, w], s.qd[d + 2, w]))
                    joint_velocity = wp.cross(anchor, joint_spin)
                    joint_spin_rate = wp.quat_rotate(q0, vec3(s.qdd[d, w], s.qdd[d + 1, w], s.qdd[d + 2, w]))
                    joint_acceleration = wp.cross(anchor, joint_spin_rate)
                    ex = wp.quat_rotate(q0, basis(0))
                    ey = wp.quat_rotate(q0, basis(1))
                    ez = wp.quat_rotate(q0, basis(2))
                    s.turn[d, w] = ex
                    s.turn[d + 1, w] = ey
                    s.turn[d + 2, w] = ez
                    s.slide[d, w] = wp.cross(anchor, ex)
                    s.slide[d + 1, w] = wp.cross(anchor, ey)
                    s.slide[d + 2, w] = wp.cross(anchor, ez)
                p1 = anchor - wp.quat_rotate(q1, links.anchor[b])
            spin = wp_ + joint_spin
            velocity = vp + joint_velocity
            # a = a_parent + S q'' + v_parent x S q'
            spin_rate = s.spin_rate[parent, w] + joint_spin_rate + wp.cross(wp_, joint_spin)
            acceleration = (
                s.acceleration[parent, w]
                + joint_acceleration
                + wp.cross(wp_, joint_velocity)
                + wp.cross(vp, joint_spin)
            )
            s.origin[b, w] = origin
            s.position[b, w] = p1
            s.rotation[b, w] = q1
            s.spin[b, w] = spin
            s.velocity[b, w] = velocity
            s.spin_rate[b, w] = spin_rate
            s.acceleration[b, w] = acceleration
            # f = I a + v x* I v, about the origin.
            moment = vec3()
            push = vec3()
            if links.mass[b] > zero:
                factor = s.parameters[links.mass_factor[b], w]
                m = factor * links.mass[b]
                c = p1 + wp.quat_rotate(q1, links.com[b])
                momentum = m * (velocity + wp.cross(spin, c))
                local_spin = wp.quat_rotate_inv(q1, spin)
                local_rate = wp.quat_rotate_inv(q1, spin_rate)
                turning = factor * wp.quat_rotate(q1, links.inertia[b] * local_spin)
                force = m * (acceleration + wp.cross(spin_rate, c))
                torque = factor * wp.quat_rotate(q1, links.inertia[b] * local_rate)
                push = force + wp.cross(spin, momentum)
                moment = (
                    torque
                    + wp.cross(c, force)
                    + wp.cross(spin, turning + wp.cross(c, momentum))
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

    @wp.func
    def joint_residual(links: Links, s: Worlds, b: int, d: int, w: int, load: real):
        damping, stiffness = implicit_gains(links, s, b, d, w)
        next_qd = s.qd[d, w] + links.dt * s.qdd[d, w]
        s.residual[d, w] = (
            load
            + s.parameters[links.armature_at + d, w] * s.qdd[d, w]
            + (damping + links.dt * stiffness) * next_qd
            - spring_force(links, s, b, d, w)
            - s.force[d, w]
        )

    @wp.kernel(module="unique")
    def sweep_in(first_world: int, links: Links, s: Worlds):
        w = first_world + wp.tid()
        for i in range(1, links.count):
            b = links.count - i
            d = links.dof_start[b]
            kind = links.kind[b]
            moment = s.moment[b, w]
            push = s.push[b, w]
            if kind == FREE:
                for j in range(3):
                    joint_residual(links, s, b, d + j, w, push[j])
                    joint_residual(links, s, b, d + 3 + j, w, moment[j])
            elif kind == BALL:
                for j in range(3):
                    load = wp.dot(s.turn[d + j, w], moment) + wp.dot(s.slide[d + j, w], push)
                    joint_residual(links, s, b, d + j, w, load)
            else:
                load = wp.dot(s.turn[d, w], moment) + wp.dot(s.slide[d, w], push)
                joint_residual(links, s, b, d, w, load)
            wp.atomic_add(s.moment, links.parent[b], w, moment)
            wp.atomic_add(s.push, links.parent[b], w, push)

    return SimpleNamespace(sweep_out=sweep_out, sweep_in=sweep_in, basis=basis, implicit_gains=implicit_gains)
