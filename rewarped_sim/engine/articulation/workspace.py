"""What the kernels of a substep share: a model's tables on a device, and the quantities of every world.

Arrays of the workspace are indexed [k, world]. In memory the world comes last on a GPU, where neighbouring threads work
on neighbouring worlds, and first on a CPU, where one thread works through a world; strides hide the difference.
"""

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import warp as wp

from rewarped_sim.engine.articulation.parameters import ParameterLayout
from rewarped_sim.engine.articulation.tree import Tree
from rewarped_sim.engine.scalars import Scalars

_WORLD = """
#if defined(__CUDA_ARCH__)
    return thread % num_worlds;
#else
    return first_world + thread / count;
#endif
"""
_ITEM = """
#if defined(__CUDA_ARCH__)
    return thread / num_worlds;
#else
    return thread % count;
#endif
"""


@wp.func_native(_WORLD)
def world_of(thread: int, count: int, first_world: int, num_worlds: int) -> int:
    """World of a thread where every world has `count` items: neighbouring threads take what lies side by side."""
    ...


@wp.func_native(_ITEM)
def item_of(thread: int, count: int, num_worlds: int) -> int:
    """Item of a thread, in [0, count)."""
    ...


@cache
def workspace_types(scalars: Scalars) -> SimpleNamespace:
    """The structs `Links` (constants) and `Worlds` (quantities, and their adjoints in arrays of the same names)."""
    real, vec3, quat, mat33 = scalars.real, scalars.vec3, scalars.quat, scalars.mat33

    @wp.struct
    class Links:
        count: int
        num_dofs: int
        num_q: int
        parent: wp.array(dtype=int)
        kind: wp.array(dtype=int)
        q_start: wp.array(dtype=int)
        dof_start: wp.array(dtype=int)
        moves_origin: wp.array(dtype=int)
        offset_position: wp.array(dtype=vec3)
        offset_quaternion: wp.array(dtype=quat)
        anchor: wp.array(dtype=vec3)
        axis: wp.array(dtype=vec3)
        mass: wp.array(dtype=real)
        com: wp.array(dtype=vec3)
        inertia: wp.array(dtype=mat33)
        # per degree of freedom
        dof_link: wp.array(dtype=int)
        dof_parent: wp.array(dtype=int)
        depth: wp.array(dtype=int)
        row: wp.array(dtype=int)
        stiffness: wp.array(dtype=real)
        rest: wp.array(dtype=real)
        lower: wp.array(dtype=real)
        upper: wp.array(dtype=real)
        limit_stiffness: wp.array(dtype=real)
        limit_damping: wp.array(dtype=real)
        # where parameters lie
        mass_factor: wp.array(dtype=int)
        damping_at: int
        armature_at: int
        drive_stiffness_at: int
        drive_damping_at: int
        dt: real

    @wp.struct
    class Worlds:
        # inputs of a substep
        q: wp.array2d(dtype=real)
        qd: wp.array2d(dtype=real)
        qdd: wp.array2d(dtype=real)
        force: wp.array2d(dtype=real)
        target: wp.array2d(dtype=real)
        activation: wp.array2d(dtype=real)
        parameters: wp.array2d(dtype=real)
        # per link: the tree's origin; position relative to it; rotation; spatial velocity, acceleration and force
        origin: wp.array2d(dtype=vec3)
        position: wp.array2d(dtype=vec3)
        rotation: wp.array2d(dtype=quat)
        spin: wp.array2d(dtype=vec3)
        velocity: wp.array2d(dtype=vec3)
        spin_rate: wp.array2d(dtype=vec3)
        acceleration: wp.array2d(dtype=vec3)
        moment: wp.array2d(dtype=vec3)
        push: wp.array2d(dtype=vec3)
        # per degree of freedom: motion subspace (angular, linear) and residual
        turn: wp.array2d(dtype=vec3)
        slide: wp.array2d(dtype=vec3)
        residual: wp.array2d(dtype=real)

    return SimpleNamespace(Links=Links, Worlds=Worlds)


SCRATCH_VECTORS = (
    "origin",
    "position",
    "spin",
    "velocity",
    "spin_rate",
    "acceleration",
    "moment",
    "push",
)
"""Arrays of `Worlds` with a vector per link that every substep fills anew."""


def make_links(tree: Tree, scalars: Scalars, device: wp.Device) -> Any:
    """The tables of a tree on a device."""
    types, model = workspace_types(scalars), tree.model
    links = types.Links()
    links.count, links.num_dofs, links.num_q = tree.num_links, model.num_dofs, model.num_coordinates
    layout = ParameterLayout.of(model)
    for name in ("damping", "armature", "drive_stiffness", "drive_damping"):
        setattr(links, f"{name}_at", getattr(layout, name).start)
    links.dt = scalars.real(model.dt_s)

    def put(name: str, values: Any, dtype: Any) -> None:
        setattr(links, name, wp.array(np.asarray(values), dtype=dtype, device=device))

    for name in ("parent", "kind", "q_start", "dof_start", "moves_origin"):
        put(name, getattr(tree, name), int)
    for name in ("dof_link", "dof_parent", "depth", "row"):
        put(name, getattr(tree, name), int)
    put("offset_position", tree.offset_position, scalars.vec3)
    put("offset_quaternion", tree.offset_quaternion, scalars.quat)
    put("anchor", tree.anchor, scalars.vec3)
    put("axis", tree.axis, scalars.vec3)
    put("mass", [part.mass for part in tree.link_mass], scalars.real)
    put("com", [part.com for part in tree.link_mass], scalars.vec3)
    put("inertia", [part.inertia for part in tree.link_mass], scalars.mat33)
    put("mass_factor", [layout.mass.start + max(body, 0) for body in tree.link_body], int)
    joint_of_dof = [model.joints[link - 1] for link in tree.dof_link]
    for name in ("stiffness", "rest", "lower", "upper", "limit_stiffness", "limit_damping"):
        put(name, [getattr(joint, name) for joint in joint_of_dof], scalars.real)
    return links


def make_worlds(tree: Tree, num_worlds: int, scalars: Scalars, device: wp.Device, *, gradient: bool) -> Any:
    """The quantities of a batch of worlds on a device, with adjoints if asked for."""
    types, model = workspace_types(scalars), tree.model
    worlds = types.Worlds()

    def put(name: str, count: int, dtype: Any) -> None:
        setattr(worlds, name, by_world(count, num_worlds, dtype, device, gradient))

    put("q", model.num_coordinates, scalars.real)
    for name in ("qd", "qdd", "force", "target", "residual"):
        put(name, model.num_dofs, scalars.real)
    for name in ("turn", "slide"):
        put(name, model.num_dofs, scalars.vec3)
    put("activation", max(len(model.muscles), 1), scalars.real)
    put("parameters", ParameterLayout.of(model).size, scalars.real)
    put("rotation", tree.num_links, scalars.quat)
    for name in SCRATCH_VECTORS:
        put(name, tree.num_links, scalars.vec3)
    return worlds


def adjoint_of(worlds: Any, scalars: Scalars) -> Any:
    """The adjoints of a workspace's arrays, under the same names."""
    Worlds = workspace_types(scalars).Worlds
    bar = Worlds()
    for name in Worlds.vars:
        setattr(bar, name, getattr(worlds, name).grad)
    return bar


def by_world(count: int, num_worlds: int, dtype: Any, device: wp.Device, gradient: bool = False) -> wp.array:
    """A zeroed array indexed [k, world]."""
    if device.is_cpu:
        return wp.zeros((num_worlds, count), dtype=dtype, device=device, requires_grad=gradient).transpose()
    return wp.zeros((count, num_worlds), dtype=dtype, device=device, requires_grad=gradient)
