"""Contact of two boxes: penetration along their 15 separating axes, shared out among the shallow ones.

Two convex polyhedra are apart if a face normal of one of them, or a cross product of two edges, keeps them apart
(Gottschalk, Lin and Manocha, SIGGRAPH 1996). Where no axis does, the least overlap is the penetration, and its axis the
normal. Choosing that axis would make force and gradient jump wherever two axes overlap equally. So every axis has a
weight that is continuous in the poses:

    edge pairs     min(clamp(4.75 - 5 overlap / least overlap of face normals), clamp(3 - overlap / least overlap))
    face normals   clamp(3 - overlap / least overlap)

with clamp to 0..1. Edge pairs count by their weights, but by no more than 1 in all; face normals share what is left by
theirs. All weights are flat around the usual cases: boxes that lie face on face share the contact between two opposite
normals, half and half, at any small tilt; an edge pair takes part only if it is shallower than the faces next to it.

Candidates, with `first` and `second` for the two boxes:

    0 to 11   normal k = candidate // 4 of the second box against four corners of the first one
    12 to 23  normal k of the first box against four corners of the second one
    24 to 32  edges 3 k + j: edge direction j of the first box across edge direction k of the second one

The corners are those of the face that opposes the normal most; corners that jut out are slid along their face back over
the other box's, into the patch that both faces share, so face contact has four points in all, however the faces lie.
Edges touch halfway between their nearest points.

Kinks, where a derivative jumps and the force does not: a corner starts to be slid; a weight starts or stops to change.
Jumps of the force: where the boxes overlap so far that one's centre is in a middle plane of the other; where the face
that opposes a normal most changes, at a tilt of 45 degrees, if corners on both sides of their common edge touch. Where
the overlap along an edge pair and a face normal are about the same, force may fall short of the least overlap.
"""

from functools import cache
from typing import Any

import warp as wp

from rewarped_sim.engine.articulation.shapes import shape_functions
from rewarped_sim.engine.scalars import Scalars

NUM_CORNERS = 24
NUM_EDGES = 9


@cache
def box_pair_function(scalars: Scalars) -> Any:
    """Build `contact` of two boxes; see `pairs`."""
    real, vec3, mat33, quat = scalars.real, scalars.vec3, scalars.mat33, scalars.quat
    shapes = shape_functions(scalars)
    entry, with_entry, row, clamp_each = shapes.entry, shapes.with_entry, shapes.row, shapes.clamp_each
    half = wp.constant(real(0.5))
    edge_onset = wp.constant(real(4.75))
    parallel_sq = wp.constant(real(1.0e-6))  # square of the sine below which edges count as parallel
    never = wp.constant(real(1.0e6))  # overlap of an axis that does not exist [m]

    @wp.func
    def abs_each(v: vec3):
        return vec3(wp.abs(v[0]), wp.abs(v[1]), wp.abs(v[2]))

    @wp.func
    def signs_of(v: vec3):
        return vec3(wp.sign(v[0]), wp.sign(v[1]), wp.sign(v[2]))

    @wp.func
    def least(v: vec3):
        return wp.min(v[0], wp.min(v[1], v[2]))

    @wp.func
    def unit(k: int):
        return with_entry(vec3(), k, real(1.0))

    # From here on everything is in the frame of the box whose normal it is, the second one for edges: Q holds the
    # other box's axes in its columns, r points to its centre.

    @wp.func
    def face_overlaps(h: vec3, other: vec3, Q: mat33, r: vec3):
        """Overlap along the box's three normals."""
        extent = vec3(
            wp.dot(abs_each(row(Q, 0)), other),
            wp.dot(abs_each(row(Q, 1)), other),
            wp.dot(abs_each(row(Q, 2)), other),
        )
        return h + extent - abs_each(r)

    @wp.func
    def edge_overlap(h: vec3, other: vec3, Q: mat33, r: vec3, j: int, k: int):
        """Overlap along the cross product of the other box's edge j with the box's edge k."""
        q = row(Q, k)
        axis = wp.cross(row(wp.transpose(Q), j), unit(k))
        length_sq = wp.dot(axis, axis)
        overlap = never
        if length_sq > parallel_sq:
            # On the other box's own axes the cross product has the entries of q in the two other places.
            before = (j + 2) % 3
            after = (j + 1) % 3
            extent = (
                wp.dot(abs_each(axis), h)
                + wp.abs(entry(q, before)) * entry(other, after)
                + wp.abs(entry(q, after)) * entry(other, before)
            )
            overlap = (extent - wp.abs(wp.dot(axis, r))) / wp.sqrt(length_sq)
        return overlap

    @wp.func
    def edge_overlaps(h: vec3, other: vec3, Q: mat33, r: vec3, k: int):
        """The same of all three edge directions of the other box."""
        return vec3(
            edge_overlap(h, other, Q, r, 0, k),
            edge_overlap(h, other, Q, r, 1, k),
            edge_overlap(h, other, Q, r, 2, k),
        )

    @wp.func
    def face_weight(overlap: real, least_overlap: real):
        return wp.clamp(real(3.0) - overlap / least_overlap, real(0.0), real(1.0))

    @wp.func
    def edge_weight(overlap: real, least_overlap: real, least_face: real):
        shallower = wp.clamp(edge_onset - real(5.0) * overlap / least_face, real(0.0), real(1.0))
        return wp.min(shallower, face_weight(overlap, least_overlap))

    @wp.func
    def face_weights(overlaps: vec3, least_overlap: real):
        """Sum of the weights."""
        return (
            face_weight(overlaps[0], least_overlap)
            + face_weight(overlaps[1], least_overlap)
            + face_weight(overlaps[2], least_overlap)
        )

    @wp.func
    def edge_weights(overlaps: vec3, least_overlap: real, least_face: real):
        return (
            edge_weight(overlaps[0], least_overlap, least_face)
            + edge_weight(overlaps[1], least_overlap, least_face)
            + edge_weight(overlaps[2], least_overlap, least_face)
        )

    @wp.func
    def corner(h: vec3, other: vec3, Q: mat33, r: vec3, k: int, side: real, index: int):
        """A corner of the other box, slid into the patch: (depth below the face, the point)."""
        facing = -side * row(Q, k)  # the inward normal in the other box's frame
        size = abs_each(facing)
        j = int(0)
        if size[1] > size[0] and size[1] >= size[2]:
            j = 1
        elif size[2] > size[0]:
            j = 2
        level = wp.sign(entry(facing, j)) * entry(other, j)
        first = wp.where(index % 2 == 0, real(-1.0), real(1.0))
        second = wp.where(index // 2 == 0, real(-1.0), real(1.0))
        y = with_entry(vec3(first, wp.where(j == 0, first, second), second), j, real(1.0))
        y = with_entry(wp.cw_mul(y, other), j, level)
        # Over to the face and back to the own one: exact after the first time if sides are parallel.
        x = r + Q * y
        for _ in range(3):
            x = with_entry(clamp_each(x, h), k, entry(x, k))
            y = with_entry(clamp_each(wp.transpose(Q) * (x - r), other), j, level)
            x = r + Q * y
        depth = entry(h, k) - side * entry(x, k)
        outside = with_entry(x - clamp_each(x, h), k, real(0.0))  # what sliding has left over
        missed = wp.min(wp.max(abs_each(outside)) / least(h), real(1.0))
        middle = with_entry(x, k, entry(x, k) + half * side * depth)
        return (real(1.0) - missed) * depth, middle

    @wp.func
    def edges(h: vec3, other: vec3, Q: mat33, r: vec3, j: int, k: int):
        """Normal towards the other box, and the point halfway between the two edges."""
        direction = row(wp.transpose(Q), j)
        normal = wp.normalize(wp.cross(direction, unit(k)))
        if wp.dot(normal, r) < real(0.0):
            normal = -normal
        own = with_entry(wp.cw_mul(signs_of(normal), h), k, real(0.0))
        opposite = with_entry(wp.cw_mul(-signs_of(wp.transpose(Q) * normal), other), j, real(0.0))
        start = r + Q * opposite
        between = start - own
        c = entry(direction, k)
        s = (c * entry(between, k) - wp.dot(direction, between)) / (real(1.0) - c * c)
        t = wp.clamp(entry(start, k) + c * s, -entry(h, k), entry(h, k))
        s = wp.clamp(s, -entry(other, j), entry(other, j))
        return normal, half * (start + s * direction + with_entry(own, k, t))

    @wp.func
    def box_box(
        candidate: int,
        size_a: vec3,
        pos_a: vec3,
        rot_a: quat,
        size_b: vec3,
        pos_b: vec3,
        rot_b: quat,
    ):
        # From here on `own` is the box whose normal or edge leads, `other` its partner.
        h = size_b
        other = size_a
        pos = pos_b
        R = wp.quat_to_matrix(rot_b)
        P = wp.quat_to_matrix(rot_a)
        offset = pos_a - pos_b
        towards_a = real(1.0)
        if candidate >= 12 and candidate < 24:
            h = size_a
            other = size_b
            pos = pos_a
            R = wp.quat_to_matrix(rot_a)
            P = wp.quat_to_matrix(rot_b)
            offset = pos_b - pos_a
            towards_a = real(-1.0)
        Q = wp.transpose(R) * P
        r = wp.transpose(R) * offset
        faces = face_overlaps(h, other, Q, r)
        other_faces = face_overlaps(other, h, wp.transpose(Q), -(wp.transpose(Q) * r))
        least_face = wp.min(least(faces), least(other_faces))
        gap = -least_face
        normal = vec3(real(0.0), real(0.0), real(1.0))
        x = vec3()
        if least_face > real(0.0):
            edges_0 = edge_overlaps(h, other, Q, r, 0)
            edges_1 = edge_overlaps(h, other, Q, r, 1)
            edges_2 = edge_overlaps(h, other, Q, r, 2)
            least_edge = wp.min(least(edges_0), wp.min(least(edges_1), least(edges_2)))
            least_overlap = wp.min(least_face, least_edge)
            gap = -least_overlap
            if least_overlap > real(0.0):
                edges_all = (
                    edge_weights(edges_0, least_overlap, least_face)
                    + edge_weights(edges_1, least_overlap, least_face)
                    + edge_weights(edges_2, least_overlap, least_face)
                )
                depth = real(0.0)
                share = real(0.0)
                if candidate < 24:
                    k = (candidate % 12) // 4
                    left = wp.max(real(1.0) - edges_all, real(0.0))
                    share = left * face_weight(entry(faces, k), least_overlap)
                    if share > real(0.0):
                        share = share / (
                            face_weights(faces, least_overlap) + face_weights(other_faces, least_overlap)
                        )
                        side = wp.sign(entry(r, k))
                        normal = side * unit(k)
                        depth, x = corner(h, other, Q, r, k, side, candidate % 4)
                else:
                    k = (candidate - 24) // 3
                    j = (candidate - 24) % 3
                    row_k = edges_0
                    if k == 1:
                        row_k = edges_1
                    elif k == 2:
                        row_k = edges_2
                    depth = entry(row_k, j)
                    share = edge_weight(depth, least_overlap, least_face)
                    if share > real(0.0):
                        share = share / wp.max(edges_all, real(1.0))
                        normal, x = edges(h, other, Q, r, j, k)
                gap = -depth
                if depth > real(0.0):
                    gap = -depth * share
        return gap, towards_a * (R * normal), pos + R * x

    return box_box
