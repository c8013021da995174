"""Constants of a soft body on the device, as all its kernels take them."""

from functools import cache
from typing import Any

import numpy as np
import warp as wp

from rewarped_sim.engine.fem.lanes import lanes_of
from rewarped_sim.engine.fem.model import FemModel, Ground
from rewarped_sim.engine.scalars import Scalars


@cache
def body_struct(scalars: Scalars) -> Any:
    """Build the struct `Body`."""
    real, vec3, mat33 = scalars.real, scalars.vec3, scalars.mat33

    @wp.struct
    class Body:
        num_vertices: int
        num_tets: int
        num_substeps: int
        lanes: int  # environments that a thread works on
        width: int  # environments in memory, a multiple of lanes
        dt: real
        gravity: vec3
        mu: real
        lam: real
        damping: real
        rest_ratio: real  # of the volume at which a body without resistance to shear would rest
        # ground
        radius: real
        stiffness: real
        approach_damping: real
        friction_stiffness: real
        friction: real
        # by tetrahedron
        corners: wp.array(dtype=wp.vec4i)
        rest_inverse: wp.array(dtype=mat33)
        volumes: wp.array(dtype=real)
        # by vertex
        inverse_masses: wp.array(dtype=real)
        first_corner: wp.array(dtype=int)  # into vertex_corners; one more than vertices
        vertex_corners: wp.array(dtype=int)  # 4 * tet + corner

    return Body


def make_body(model: FemModel, num_envs: int, scalars: Scalars, device: wp.Device) -> Any:
    """The constants of a model, for a batch of environments."""
    body = body_struct(scalars)()
    lanes = lanes_of(scalars, device)
    # No ground is one that does not push.
    ground = model.ground or Ground(stiffness=0.0, damping=0.0, friction_stiffness=0.0, friction=0.0)
    body.num_vertices, body.num_tets = model.num_vertices, model.num_tets
    body.num_substeps = model.num_substeps
    body.lanes, body.width = lanes, -(-num_envs // lanes) * lanes
    body.dt = model.dt_s
    body.gravity = scalars.vec3(*model.gravity)
    body.mu, body.lam, body.damping = model.mu, model.lam, model.damping
    body.rest_ratio = 1.0 + 0.75 * model.mu / model.lam
    body.radius = model.vertex_radius
    body.stiffness, body.approach_damping = ground.stiffness, ground.damping
    body.friction_stiffness, body.friction = ground.friction_stiffness, ground.friction
    corner_vertex = model.tets.ravel()
    starts = np.concatenate(([0], np.cumsum(np.bincount(corner_vertex, minlength=model.num_vertices))))
    for name, values, dtype in (
        ("corners", model.tets, wp.vec4i),
        ("rest_inverse", model.rest_inverse, scalars.mat33),
        ("volumes", model.volumes, scalars.real),
        ("inverse_masses", 1.0 / model.masses, scalars.real),
        ("first_corner", starts, int),
        ("vertex_corners", np.argsort(corner_vertex, kind="stable"), int),
    ):
        setattr(body, name, wp.array(values, dtype=dtype, device=device))
    return body
