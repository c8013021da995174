"""Contact between shapes of different bodies.

A shape is a core with a radius: a sphere's core is a point, a capsule's a segment, a box's a smaller box. So a box's
edges and corners are rounded, by a tenth of its smallest half extent. Normals and points of contact turn smoothly with
the poses, as far as shapes overlap by no more than their radii, and all contacts are of two kinds:

* a *feeler*, a ball on one shape (a sphere itself, the ends of a capsule's core, the corners of a box's core), against
  the core of the other shape;
* a *crossing*, a segment of one shape (a capsule's core, an edge of a box's core) against a capsule's core, or against
  the edges of a box's core.

A crossing with a box's edge is weighted by 4 t (1 - t) (1 - x^2) with the places t in [0, 1] and x in [-1, 1] of the
contact along the two edges: where it would end, the corner has taken over. So forces are continuous. Two corners that
meet feel each other twice.

Unlike pipelines that keep the normal of a contact fixed, everything here moves with the state, so the gradients are
those of the force that acts.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import warp as wp

from rewarped_sim.engine.articulation.contact import contact_force_function
from rewarped_sim.engine.articulation.model import Geom
from rewarped_sim.engine.articulation.parameters import CONTACT_FIELDS, ParameterLayout
from rewarped_sim.engine.articulation.tree import PlacedGeom, Tree, mean_material
from rewarped_sim.engine.articulation.workspace import by_world, item_of, workspace_types, world_of
from rewarped_sim.engine.kinematics import CAPSULE, SHAPE_KINDS, rotation_matrix
from rewarped_sim.engine.scalars import Scalars

ROUNDING = 0.1
"""Radius of a box's edges per smallest half extent."""
PARALLEL = 1.0e-4
"""Square of the angle [rad^2] below which two segments meet in the middle of their overlap, not where lines cross."""
BISECTIONS = 22


@dataclass(frozen=True)
class Core:
    """What is left of a shape when its radius is taken off."""

    half: np.ndarray
    """Half extents (3,): zero for a sphere, (0, 0, half_length) for a capsule [m]."""
    radius: float

    @staticmethod
    def of(geom: Geom) -> "Core":
        """The core of a shape."""
        if geom.kind == "sphere":
            return Core(np.zeros(3), geom.size[0])
        if geom.kind == "capsule":
            return Core(np.array([0.0, 0.0, geom.size[1]]), geom.size[0])
        rounding = ROUNDING * min(geom.size)
        return Core(np.array(geom.size) - rounding, rounding)

    @property
    def corners(self) -> np.ndarray:
        """Corners of the core, each once: (1, 2 or 8, 3)."""
        signs = product(*[(-1.0, 1.0) if extent > 0.0 else (0.0,) for extent in self.half])
        return np.array(list(signs)) * self.half

    @property
    def edges(self) -> np.ndarray:
        """Edges of the core from corner to corner: (0, 1 or 12, 2, 3)."""
        corners = self.corners
        found = [
            (a, b)
            for index, a in enumerate(corners)
            for b in corners[index + 1 :]
            if np.count_nonzero(a != b) == 1
        ]
        return np.reshape(found, (-1, 2, 3))

    @property
    def reach(self) -> float:
        """Radius of the ball around the centre that holds the shape [m]."""
        return float(np.linalg.norm(self.half)) + self.radius


class ShapePairs:
    """Contacts between shapes of a model's `contact_pairs`, and the launches that add their forces."""

    def __init__(self, tree: Tree, num_worlds: int, scalars: Scalars, device: wp.Device) -> None:
        self._pairs = _touching(tree)
        self.count = len(self._pairs)
        """Pairs of shapes in a world; without any there is nothing to launch."""
        self._kernels = pair_kernels(scalars, tree.model.contact_law)
        self._factors_at = ParameterLayout.of(tree.model).contact.start
        self._near = by_world(max(self.count, 1), num_worlds, wp.int32, device)
        feelers, crossings = [], []
        for pair, (first, second) in enumerate(self._pairs):
            for a, b, flipped in ((first, second, 0), (second, first, 1)):
                feelers += [(pair, flipped, point) for point in _feelers(a, b)]
            crossings += [(pair, 0, edge) for edge in _crossing_edges(first, second)]
            crossings += [(pair, 1, edge) for edge in _crossing_edges(second, first, only_capsules=True)]
        self._table = self._make_table(scalars, device)
        self._feelers = _Contacts(feelers, 1, scalars, device)
        self._crossings = _Contacts(crossings, 2, scalars, device)

    def launches(self, first_world: int, num_worlds: int, worlds: Any) -> list[tuple]:
        """(kernel, dim, arguments, whether it has an adjoint) of each launch, for some worlds, in order."""
        kernels, common = self._kernels, [first_world, self._table, self._near]
        launches = [(kernels.cull, num_worlds * self.count, [*common, worlds], False)]
        for kernel, contacts in ((kernels.feel, self._feelers), (kernels.cross, self._crossings)):
            if contacts.num_threads:
                arguments = [*common, contacts.num_threads, self._factors_at, *contacts.arrays, worlds]
                launches.append((kernel, num_worlds * contacts.num_threads, arguments, True))
        return launches

    def _make_table(self, scalars: Scalars, device: wp.Device) -> Any:
        """The two shapes of every pair, side by side."""
        table = pair_types(scalars).Pairs()
        table.count = self.count
        both = [[*pair] for pair in self._pairs]
        cores = [[Core.of(placed.geom) for placed in pair] for pair in self._pairs]

        def put(name: str, values: Any, dtype: Any, *shape: int) -> None:
            array = np.reshape(np.asarray(values, dtype=np.float64), (-1, *shape))
            setattr(table, name, wp.array(array, dtype=dtype, device=device))

        real, vec3 = scalars.real, scalars.vec3
        put("link", [[placed.link for placed in pair] for pair in both], wp.int32, 2)
        put("kind", [[SHAPE_KINDS[placed.geom.kind] for placed in pair] for pair in both], wp.int32, 2)
        put("half", [[core.half for core in pair] for pair in cores], vec3, 2, 3)
        put("radius", [[core.radius for core in pair] for pair in cores], real, 2)
        put("reach", [sum(core.reach for core in pair) for pair in cores], real)
        put("position", [[placed.position for placed in pair] for pair in both], vec3, 2, 3)
        put("quaternion", [[placed.quaternion for placed in pair] for pair in both], scalars.quat, 2, 4)
        materials = [mean_material(a.geom.contact, b.geom.contact) for a, b in self._pairs]
        put("gains", [[getattr(m, name) for name in CONTACT_FIELDS] for m in materials], scalars.vec4, 4)
        return table


class _Contacts:
    """Feelers or crossings as arrays, dealt out to threads.

    On a GPU every contact has a thread of its own; on a CPU all contacts of a pair share one, so that a pair which is
    far apart costs a single look.
    """

    def __init__(
        self, contacts: list[tuple[int, int, np.ndarray]], points: int, scalars: Scalars, device: wp.Device
    ) -> None:
        """contacts: (pair, side, `points` points); those of a pair follow each other."""
        pair, side, point = zip(*contacts, strict=True) if contacts else ((), (), ())
        starts = [
            index
            for index in range(len(pair))
            if not (device.is_cpu and index and pair[index] == pair[index - 1])
        ]
        self.num_threads = len(starts)
        ends = np.reshape(point, (-1, points, 3))
        integers = ([pair[index] for index in starts], [*starts, len(pair)], side)
        self.arrays = [wp.array(values, dtype=int, device=device) for values in integers]
        self.arrays += [
            wp.array(np.ascontiguousarray(ends[:, end]), dtype=scalars.vec3, device=device)
            for end in range(points)
        ]


@cache
def pair_types(scalars: Scalars) -> SimpleNamespace:
    """The struct `Pairs`: shapes of each pair, [pair, side]."""
    real, vec3, vec4, quat = scalars.real, scalars.vec3, scalars.vec4, scalars.quat

    @wp.struct
    class Pairs:
        count: int
        link: wp.array2d(dtype=int)
        kind: wp.array2d(dtype=int)
        half: wp.array2d(dtype=vec3)
        radius: wp.array2d(dtype=real)
        position: wp.array2d(dtype=vec3)
        quaternion: wp.array2d(dtype=quat)
        reach: wp.array(dtype=real)
        gains: wp.array(dtype=vec4)

    return SimpleNamespace(Pairs=Pairs)


@cache
def pair_functions(scalars: Scalars) -> SimpleNamespace:
    """Build the geometry: all in the frame of the shape that is touched."""
    real, vec3, vec4 = scalars.real, scalars.vec3, scalars.vec4
    parallel = wp.constant(real(PARALLEL))
    tiny = wp.constant(real(1.0e-12))
    margin = wp.constant(real(1.0e-4))

    @wp.func
    def core_distance(half: vec3, q: vec3):
        """Distance (negative inside) and outward normal (d, n) of a core at a point."""
        w = vec3(
            q[0] - wp.clamp(q[0], -half[0], half[0]),
            q[1] - wp.clamp(q[1], -half[1], half[1]),
            q[2] - wp.clamp(q[2], -half[2], half[2]),
        )
        distance_sq = wp.dot(w, w)
        result = vec4(real(0.0), real(0.0), real(0.0), real(1.0))
        if distance_sq > tiny * tiny:
            distance = wp.sqrt(distance_sq)
            result = vec4(distance, w[0] / distance, w[1] / distance, w[2] / distance)
        else:
            gap = vec3(wp.abs(q[0]) - half[0], wp.abs(q[1]) - half[1], wp.abs(q[2]) - half[2])
            if gap[0] >= gap[1] and gap[0] >= gap[2]:
                result = vec4(gap[0], wp.sign(q[0]), real(0.0), real(0.0))
            elif gap[1] >= gap[2]:
                result = vec4(gap[1], real(0.0), wp.sign(q[1]), real(0.0))
            else:
                result = vec4(gap[2], real(0.0), real(0.0), wp.sign(q[2]))
        return result

    @wp.func
    def nearest_on_segment(half_length: real, p: vec3, d: vec3):
        """Place s in [0, 1] on the segment p + s d that is nearest to a capsule's core, |z| <= half_length."""
        across = d[0] * d[0] + d[1] * d[1]
        length_sq = wp.dot(d, d)
        low = wp.max(wp.min(p[2], p[2] + d[2]), -half_length)
        high = wp.min(wp.max(p[2], p[2] + d[2]), half_length)
        middle = (real(0.5) * (low + high) - p[2]) * d[2] / (d[2] * d[2] + tiny)
        pull = parallel * length_sq
        s = (pull * middle - p[0] * d[0] - p[1] * d[1]) / (across + pull)
        s = wp.clamp(s, real(0.0), real(1.0))
        z = p[2] + s * d[2]
        if wp.abs(z) > half_length:
            end = wp.clamp(z, -half_length, half_length)
            s = wp.clamp(((end - p[2]) * d[2] - p[0] * d[0] - p[1] * d[1]) / length_sq, real(0.0), real(1.0))
        return s

    @wp.func
    def nearest_to_box(half: vec3, p: vec3, d: vec3):
        """Place in [0, 1] on p + t d that is nearest to a box, by bisection; tells faces, edges and corners apart."""
        low = real(0.0)
        high = real(1.0)
        for _ in range(wp.static(BISECTIONS)):
            t = real(0.5) * (low + high)
            x = p + t * d
            slope = (
                (x[0] - wp.clamp(x[0], -half[0], half[0])) * d[0]
                + (x[1] - wp.clamp(x[1], -half[1], half[1])) * d[1]
                + (x[2] - wp.clamp(x[2], -half[2], half[2])) * d[2]
            )
            if slope > real(0.0):
                high = t
            else:
                low = t
        return real(0.5) * (low + high)

    @wp.func_grad(nearest_to_box)
    def adj_nearest_to_box(half: vec3, p: vec3, d: vec3, t_bar: real):
        # Only which edge is nearest is taken from it; the place on it is then computed in closed form.
        pass

    @wp.func
    def box_edge_crossing(half: vec3, p: vec3, d: vec3):
        """Place t on p + t d that is nearest to the edge of a box, and the weight of the crossing: (t, weight)."""
        zero, one = real(0.0), real(1.0)
        guess = nearest_to_box(half, p, d)
        x = p + guess * d
        outside = vec3()
        corner = vec3()
        for i in range(3):
            if wp.abs(x[i]) > half[i]:
                outside[i] = one
                corner[i] = wp.sign(x[i]) * half[i]
        t = zero
        weight = zero
        is_edge = outside[0] + outside[1] + outside[2] == real(2.0)
        if is_edge and guess > margin and guess < one - margin:
            moving = wp.cw_mul(outside, d)
            t = wp.dot(moving, corner - p) / wp.dot(moving, d)
            within = wp.cw_mul(vec3(one, one, one) - outside, wp.cw_div(p + t * d, half))
            weight = real(4.0) * t * (one - t) * (one - wp.dot(within, within))
        return t, wp.max(weight, zero)

    @wp.func
    def crossing(kind: int, half: vec3, p: vec3, d: vec3):
        """Place on p + t d that is nearest to a capsule's core or a box's edge, and the weight of the crossing."""
        place = real(0.0)
        weight = real(1.0)
        if kind == CAPSULE:
            place = nearest_on_segment(half[2], p, d)
        else:
            place, weight = box_edge_crossing(half, p, d)
        return place, weight

    return SimpleNamespace(core_distance=core_distance, crossing=crossing)


@cache
def pair_kernels(scalars: Scalars, law: str) -> SimpleNamespace:
    """Build `cull`, `feel` and `cross`; one thread per pair or contact, and world."""
    real, vec3, vec4 = scalars.real, scalars.vec3, scalars.vec4
    Worlds, Pairs = workspace_types(scalars).Worlds, pair_types(scalars).Pairs
    geometry = pair_functions(scalars)
    core_distance = geometry.core_distance
    crossing = geometry.crossing
    contact_force = contact_force_function(scalars, law)

    @wp.func
    def centre(s: Worlds, pairs: Pairs, pair: int, side: int, link: int, w: int):
        """Centre of a shape relative to its tree's origin."""
        return s.position[link, w] + wp.quat_rotate(s.rotation[link, w], pairs.position[pair, side])

    @wp.kernel(enable_backward=False, module="unique")
    def cull(first_world: int, pairs: Pairs, near: wp.array2d(dtype=int), s: Worlds):
        """Mark the pairs whose bounding balls overlap."""
        t = wp.tid()
        w = world_of(t, pairs.count, first_world, s.q.shape[1])
        pair = item_of(t, pairs.count, s.q.shape[1])
        a = pairs.link[pair, 0]
        b = pairs.link[pair, 1]
        apart = (
            centre(s, pairs, pair, 0, a, w)
            - centre(s, pairs, pair, 1, b, w)
            + (s.origin[a, w] - s.origin[b, w])
        )
        reach = pairs.reach[pair]
        near[pair, w] = wp.where(wp.dot(apart, apart) < reach * reach, 1, 0)

    @wp.func
    def touch(
        s: Worlds,
        pairs: Pairs,
        pair: int,
        side: int,
        w: int,
        factors_at: int,
        x: vec3,
        weight: real,
    ):
        """Force between the ball on shape `side` with its centre at x, and the other shape, whose frame x is in."""
        other = 1 - side
        a = pairs.link[pair, side]
        b = pairs.link[pair, other]
        near = core_distance(pairs.half[pair, other], x)
        gap = near[0] - pairs.radius[pair, side] - pairs.radius[pair, other]
        if gap < real(0.0):
            rotation = s.rotation[b, w] * pairs.quaternion[pair, other]
            local = vec3(near[1], near[2], near[3])
            normal = wp.quat_rotate(rotation, local)
            # Half way between the two surfaces.
            point_b = centre(s, pairs, pair, other, b, w) + wp.quat_rotate(
                rotation, x - (pairs.radius[pair, side] + real(0.5) * gap) * local
            )
            point_a = point_b + (s.origin[b, w] - s.origin[a, w])
            velocity = (
                s.velocity[a, w]
                + wp.cross(s.spin[a, w], point_a)
                - s.velocity[b, w]
                - wp.cross(s.spin[b, w], point_b)
            )
            factors = vec4(
                s.parameters[factors_at, w],
                s.parameters[factors_at + 1, w],
                s.parameters[factors_at + 2, w],
                s.parameters[factors_at + 3, w],
            )
            force = weight * contact_force(-gap, normal, velocity, wp.cw_mul(factors, pairs.gains[pair]))
            wp.atomic_sub(s.push, a, w, force)
            wp.atomic_sub(s.moment, a, w, wp.cross(point_a, force))
            wp.atomic_add(s.push, b, w, force)
            wp.atomic_add(s.moment, b, w, wp.cross(point_b, force))

    @wp.func
    def into_other(s: Worlds, pairs: Pairs, pair: int, side: int, w: int, point: vec3):
        """A point of the frame of the link that carries shape `side`, in the frame of the other shape."""
        other = 1 - side
        a = pairs.link[pair, side]
        b = pairs.link[pair, other]
        x = s.position[a, w] + wp.quat_rotate(s.rotation[a, w], point) + (s.origin[a, w] - s.origin[b, w])
        rotation = s.rotation[b, w] * pairs.quaternion[pair, other]
        return wp.quat_rotate_inv(rotation, x - centre(s, pairs, pair, other, b, w))

    @wp.kernel(module="unique")
    def feel(
        first_world: int,
        pairs: Pairs,
        near: wp.array2d(dtype=int),
        count: int,
        factors_at: int,
        pair_of: wp.array(dtype=int),
        first: wp.array(dtype=int),
        side: wp.array(dtype=int),
        point: wp.array(dtype=vec3),
        s: Worlds,
    ):
        t = wp.tid()
        w = world_of(t, count, first_world, s.q.shape[1])
        group = item_of(t, count, s.q.shape[1])
        pair = pair_of[group]
        if near[pair, w] != 0:
            for i in range(first[group], first[group + 1]):
                x = into_other(s, pairs, pair, side[i], w, point[i])
                touch(s, pairs, pair, side[i], w, factors_at, x, real(1.0))

    @wp.kernel(module="unique")
    def cross(
        first_world: int,
        pairs: Pairs,
        near: wp.array2d(dtype=int),
        count: int,
        factors_at: int,
        pair_of: wp.array(dtype=int),
        first: wp.array(dtype=int),
        side: wp.array(dtype=int),
        start: wp.array(dtype=vec3),
        end: wp.array(dtype=vec3),
        s: Worlds,
    ):
        t = wp.tid()
        w = world_of(t, count, first_world, s.q.shape[1])
        group = item_of(t, count, s.q.shape[1])
        pair = pair_of[group]
        if near[pair, w] != 0:
            for i in range(first[group], first[group + 1]):
                p = into_other(s, pairs, pair, side[i], w, start[i])
                d = into_other(s, pairs, pair, side[i], w, end[i]) - p
                half = pairs.half[pair, 1 - side[i]]
                place, weight = crossing(pairs.kind[pair, 1 - side[i]], half, p, d)
                if weight > real(0.0):
                    touch(s, pairs, pair, side[i], w, factors_at, p + place * d, weight)

    return SimpleNamespace(cull=cull, feel=feel, cross=cross)


def _touching(tree: Tree) -> list[tuple[PlacedGeom, PlacedGeom]]:
    """All pairs of shapes that may touch."""
    index = {body.name: number for number, body in enumerate(tree.model.bodies)}
    by_body: dict[int, list[PlacedGeom]] = {number: [] for number in index.values()}
    for placed in tree.geoms:
        if placed.geom.contact is not None:
            by_body[placed.body].append(placed)
    return [
        (first, second)
        for one, other in tree.model.contact_pairs
        for first, second in product(by_body[index[one]], by_body[index[other]])
        if first.link != second.link
    ]


def _feelers(placed: PlacedGeom, other: PlacedGeom) -> list[np.ndarray]:
    """Balls of a shape that feel another one, by their centres in the frame of the shape's link."""
    kind, others = placed.geom.kind, other.geom.kind
    if kind == "capsule" and others == "capsule":
        return []  # the crossing of their cores is all there is
    if others == "sphere" and (kind != "sphere" or placed.body > other.body):
        return []  # the sphere itself is the feeler
    return [
        placed.position + rotation_matrix(placed.quaternion) @ corner
        for corner in Core.of(placed.geom).corners
    ]


def _crossing_edges(
    placed: PlacedGeom, other: PlacedGeom, *, only_capsules: bool = False
) -> list[np.ndarray]:
    """Segments of a shape that may cross another one, by their ends in the frame of the shape's link."""
    kind, others = placed.geom.kind, other.geom.kind
    if others == "sphere" or kind == "sphere" or (kind == "box" and others == "capsule"):
        return []
    if only_capsules and kind == others:
        return []
    rotation = rotation_matrix(placed.quaternion)
    return [placed.position + edge @ rotation.T for edge in Core.of(placed.geom).edges]
