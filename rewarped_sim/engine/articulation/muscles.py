"""Muscles as strings through points on bodies: each stretch between two bodies pulls them together.

A muscle of activation u pulls with u times its largest force, along every straight stretch between points on different
bodies. There is no dependence on length or speed.
"""

from functools import cache
from typing import Any

import numpy as np
import warp as wp

from rewarped_sim.engine.articulation.tree import Tree
from rewarped_sim.engine.articulation.workspace import item_of, workspace_types, world_of
from rewarped_sim.engine.scalars import Scalars


class Muscles:
    """The stretches of a model's muscles: one thread per stretch and world."""

    def __init__(self, tree: Tree, scalars: Scalars, device: wp.Device) -> None:
        segments = tree.muscle_segments()
        self.count = len(segments)
        """Stretches of a world; without any there is nothing to launch."""
        columns = zip(*segments, strict=True) if segments else ((),) * 6
        muscle, max_force, link_a, point_a, link_b, point_b = columns
        self.muscle = wp.array(muscle, dtype=int, device=device)
        self.max_force = wp.array(max_force, dtype=scalars.real, device=device)
        self.links = wp.array(np.stack([link_a, link_b], axis=-1), dtype=wp.vec2i, device=device)
        self.point_a = wp.array(np.reshape(point_a, (-1, 3)), dtype=scalars.vec3, device=device)
        self.point_b = wp.array(np.reshape(point_b, (-1, 3)), dtype=scalars.vec3, device=device)
        self.kernel = muscle_kernel(scalars)

    def launches(self, first_world: int, num_worlds: int, worlds: Any) -> list[tuple]:
        """(kernel, dim, arguments, whether it has an adjoint) of the one launch, for some worlds."""
        arguments = [
            first_world, self.count, self.muscle, self.max_force, self.links, self.point_a, self.point_b, worlds,
        ]  # fmt: skip
        return [(self.kernel, num_worlds * self.count, arguments, True)]


@cache
def muscle_kernel(scalars: Scalars) -> Any:
    """Build the kernel that subtracts the muscles' forces from the links' inertial ones."""
    real, vec3 = scalars.real, scalars.vec3
    Worlds = workspace_types(scalars).Worlds
    shortest = wp.constant(real(1.0e-9))

    @wp.kernel(module="unique")
    def pull(
        first_world: int,
        count: int,
        muscle: wp.array(dtype=int),
        max_force: wp.array(dtype=real),
        links: wp.array(dtype=wp.vec2i),
        point_a: wp.array(dtype=vec3),
        point_b: wp.array(dtype=vec3),
        s: Worlds,
    ):
        t = wp.tid()
        w = world_of(t, count, first_world, s.q.shape[1])
        i = item_of(t, count, s.q.shape[1])
        a = links[i][0]
        b = links[i][1]
        xa = s.position[a, w] + wp.quat_rotate(s.rotation[a, w], point_a[i])
        xb = s.position[b, w] + wp.quat_rotate(s.rotation[b, w], point_b[i])
        stretch = xb - xa + s.origin[b, w] - s.origin[a, w]
        length = wp.max(wp.length(stretch), shortest)
        force = (s.activation[muscle[i], w] * max_force[i] / length) * stretch
        wp.atomic_sub(s.push, a, w, force)
        wp.atomic_sub(s.moment, a, w, wp.cross(xa, force))
        wp.atomic_add(s.push, b, w, force)
        wp.atomic_add(s.moment, b, w, wp.cross(xb, force))

    return pull
