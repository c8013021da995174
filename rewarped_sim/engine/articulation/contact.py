"""Contact forces: a spring and a damper along the normal, and friction, by one of three laws.

With the depth d of the overlap, the relative velocity's normal part v_n and tangential part v_t, and the gains of
`ContactMaterial` (k_e, k_d, k_f, mu):

    regularized  f_n = k_e d + k_d d max(-v_n, 0),  f_t = -v_t min(k_f, mu f_n / sqrt(v_t^2 + e^2)),  e = 1 mm/s
    dflex        f_n as above,                      f_t = -v_t min(k_f, mu k_e d / |v_t|)
    huber        f_n = k_e d + k_d max(-v_n, 0),    f_t = -v_t min(k_f, mu f_n / s),  s = Huber norm of v_t, delta 1 m/s

`regularized` is the one to learn with: it is continuous at touch-down and smooth at rest. The other two are those that
the published figures of the locomotion tasks were measured with: `dflex` in the differentiable simulator of the SHAC
paper (Xu et al., ICLR 2022), `huber` in that of the SAPO paper. With `huber`, slow slip may exceed the Coulomb cone.
"""

from functools import cache
from typing import Any

import numpy as np
import warp as wp

from rewarped_sim.engine.articulation.parameters import CONTACT_FIELDS, ParameterLayout
from rewarped_sim.engine.articulation.tree import Tree
from rewarped_sim.engine.articulation.workspace import item_of, workspace_types, world_of
from rewarped_sim.engine.scalars import Scalars

SLIP_SPEED_SQ = 1.0e-6
"""Square of e [m^2/s^2]."""


@cache
def contact_force_function(scalars: Scalars, law: str) -> Any:
    """Build `contact_force(depth, normal, velocity, gains) -> force` on the side that the normal points to."""
    real, vec3, vec4 = scalars.real, scalars.vec3, scalars.vec4
    slip_sq = wp.constant(real(SLIP_SPEED_SQ))
    tiny = wp.constant(real(1.0e-12))

    @wp.func
    def regularized(depth: real, approach: real, speed_sq: real, gains: vec4):
        """Normal force, and friction per slip speed."""
        push = gains[0] * depth + gains[1] * depth * approach
        return push, wp.min(gains[2], gains[3] * push / wp.sqrt(speed_sq + slip_sq))

    @wp.func
    def dflex(depth: real, approach: real, speed_sq: real, gains: vec4):
        spring = gains[0] * depth
        grip = wp.min(gains[2], gains[3] * spring / wp.sqrt(wp.max(speed_sq, tiny)))
        return spring + gains[1] * depth * approach, grip

    @wp.func
    def huber(depth: real, approach: real, speed_sq: real, gains: vec4):
        push = gains[0] * depth + gains[1] * approach
        size = real(0.5) * speed_sq
        if speed_sq > real(1.0):
            size = wp.sqrt(speed_sq) - real(0.5)
        return push, wp.min(gains[2], gains[3] * push / wp.max(size, tiny))

    push_and_grip = {"regularized": regularized, "dflex": dflex, "huber": huber}[law]

    @wp.func
    def contact_force(depth: real, normal: vec3, velocity: vec3, gains: vec4):
        along = wp.dot(normal, velocity)
        slip = velocity - along * normal
        push, grip = push_and_grip(depth, wp.max(-along, real(0.0)), wp.dot(slip, slip), gains)
        return push * normal - grip * slip

    return contact_force


class GroundContact:
    """Points of shapes against the plane z = 0: one thread per point and world."""

    def __init__(self, tree: Tree, scalars: Scalars, device: wp.Device) -> None:
        points = tree.ground_points()
        self.count = len(points)
        """Points of a world; without any there is nothing to launch."""
        links, centres, radii, materials = zip(*points, strict=True) if points else ((), (), (), ())
        gains = [[getattr(material, name) for name in CONTACT_FIELDS] for material in materials]
        self.link = wp.array(links, dtype=int, device=device)
        self.centre = wp.array(np.reshape(centres, (-1, 3)), dtype=scalars.vec3, device=device)
        self.radius = wp.array(radii, dtype=scalars.real, device=device)
        self.gains = wp.array(np.reshape(gains, (-1, 4)), dtype=scalars.vec4, device=device)
        self.factors_at = ParameterLayout.of(tree.model).contact.start
        self.kernel = ground_kernel(scalars, tree.model.contact_law)

    def launches(self, first_world: int, num_worlds: int, worlds: Any) -> list[tuple]:
        """(kernel, dim, arguments, whether it has an adjoint) of the one launch, for some worlds."""
        arguments = [
            first_world, self.count, self.factors_at, self.link, self.centre, self.radius, self.gains, worlds,
        ]  # fmt: skip
        return [(self.kernel, num_worlds * self.count, arguments, True)]


@cache
def ground_kernel(scalars: Scalars, law: str) -> Any:
    """Build the kernel that subtracts the ground's forces from the links' inertial ones."""
    real, vec3, vec4 = scalars.real, scalars.vec3, scalars.vec4
    Worlds = workspace_types(scalars).Worlds
    contact_force = contact_force_function(scalars, law)

    @wp.kernel(module="unique")
    def ground(
        first_world: int,
        count: int,
        factors_at: int,
        link: wp.array(dtype=int),
        centre: wp.array(dtype=vec3),
        radius: wp.array(dtype=real),
        gains: wp.array(dtype=vec4),
        s: Worlds,
    ):
        t = wp.tid()
        w = world_of(t, count, first_world, s.q.shape[1])
        i = item_of(t, count, s.q.shape[1])
        b = link[i]
        up = vec3(real(0.0), real(0.0), real(1.0))
        x = s.position[b, w] + wp.quat_rotate(s.rotation[b, w], centre[i]) - radius[i] * up
        height = x[2] + s.origin[b, w][2]
        if height < real(0.0):
            velocity = s.velocity[b, w] + wp.cross(s.spin[b, w], x)
            factors = vec4(
                s.parameters[factors_at, w],
                s.parameters[factors_at + 1, w],
                s.parameters[factors_at + 2, w],
                s.parameters[factors_at + 3, w],
            )
            force = contact_force(-height, up, velocity, wp.cw_mul(factors, gains[i]))
            wp.atomic_sub(s.push, b, w, force)
            wp.atomic_sub(s.moment, b, w, wp.cross(x, force))

    return ground
