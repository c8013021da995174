"""The MPM solver: a control step of a batch of environments forward, and its adjoint back, as captured graphs.

Forward, per control step: poses of all tools, then per substep `scatter`, `cull`, `update`, `gather`; bodies that are
pushed back take their pose before and their step after. Backward, per substep in reverse: `restore`, `gather_adj`,
`update_adj`, `scatter_adj`, `strain_adj`; then wrenches on the tools' shapes become adjoints of the joint coordinates.
No tape: every adjoint buffer is written by exactly one kernel, and what is scattered into is cleared by the kernel
that lists it.
"""

import os
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import warp as wp

from rewarped_sim.engine.kinematics import (
    SHAPE_KINDS,
    Anchor,
    ToolModel,
    ToolPoses,
    kinematics_kernels,
)
from rewarped_sim.engine.mpm.bodies import BODY_SIZE, BodyModel, BodyMotion, body_kernels
from rewarped_sim.engine.mpm.contact import CONTACT_LAWS
from rewarped_sim.engine.mpm.grid import (
    BLOCK,
    BLOCK_NODES,
    FAULTS,
    MAX_ENVS,
    WALL_NODES,
    grid_functions,
    grid_kernels,
)
from rewarped_sim.engine.mpm.material_table import MATERIAL_FIELDS
from rewarped_sim.engine.mpm.model import MpmModel
from rewarped_sim.engine.mpm.state import PARTICLE_SIZE
from rewarped_sim.engine.mpm.transfers import MAX_STEP, transfer_kernels
from rewarped_sim.engine.scalars import FLOAT32, Scalars
from rewarped_sim.engine.trajectory import CapturedLaunches

GPU_THREADS_PER_PROCESSOR = 1024


class BlockPoolError(RuntimeError):
    """Particles touched more of the grid than the block pool holds; the step that did so is not valid."""


class _Shard:
    """The part of a batch that one thread works on: some environments and the block lists of their control steps."""

    def __init__(
        self, solver: "MpmSolver", first_env: int, num_envs: int, num_slots: int, device: wp.Device
    ) -> None:
        model, scalars = solver.model, solver.scalars
        self.first_env = first_env
        self.num_envs = num_envs
        self.first_particle = first_env * model.num_particles
        self.num_particles = num_envs * model.num_particles
        self.pool = num_envs * model.max_blocks * model.num_substeps
        self.grid = solver.grid_struct(self.pool)
        self.blocks = wp.empty((num_slots, self.pool), dtype=int, device=device)
        self.mask = wp.empty((num_slots, self.pool), dtype=int, device=device)
        self.starts = wp.zeros((num_slots, model.num_substeps + 1), dtype=int, device=device)
        self.most = wp.zeros(1, dtype=int, device=device)
        """Blocks asked for in any control step of which the slot has been used again."""
        # Memory that is never touched is never committed by a CPU's operating system: no zeroing here.
        self.saved = wp.empty((num_slots, self.pool * BLOCK_NODES), dtype=scalars.vec4, device=device)
        self.stamp = wp.ones(1, dtype=int, device=device)


class MpmSolver:
    """A batch of environments of one `MpmModel` on a device.

    state: (num_slots * (num_substeps + 1), num_envs * num_particles * 24); row `slot * (num_substeps + 1)` is a
    control step's first state, the last row of the slot its result. joint_q, joint_dq: (num_slots, num_envs, joints).
    `forward(slot)` fills a slot from its first row and joint inputs; `backward(slot)` takes the adjoint of the
    result in `state_bar[result_row]` and leaves those of the inputs in `state_bar[0]`, `joint_q_bar`, `joint_dq_bar`.
    bodies: (num_slots * (num_substeps + 1), num_envs * bodies * 13), in the same rows; `bodies_bar` likewise, with the
    adjoint of the result in the slot's last row and that of the input in its first. material_table: (num_slots *
    num_envs, parts, fields), the constants that a control step runs with; with material_gradient, `material_bar`
    (num_envs, parts, fields) holds their adjoints.
    """

    def __init__(
        self,
        model: MpmModel,
        *,
        num_envs: int,
        num_slots: int,
        requires_grad: bool = True,
        material_gradient: bool = False,
        scalars: Scalars = FLOAT32,
        device: str = "cpu",
        num_threads: int | None = None,
    ) -> None:
        if not 1 <= num_envs <= MAX_ENVS:
            raise ValueError(f"num_envs must be in [1, {MAX_ENVS}], got {num_envs}")
        self.model = model
        self.num_envs = num_envs
        self.num_slots = num_slots
        self.scalars = scalars
        self.device = wp.get_device(device)
        device_ = self.device
        real, vec4 = scalars.real, scalars.vec4
        n, substeps = model.grid_size, model.num_substeps

        width = num_envs * model.num_particles * PARTICLE_SIZE
        self.state = wp.zeros((num_slots * (substeps + 1), width), dtype=real, device=device_)
        self.slot = wp.zeros(1, dtype=int, device=device_)
        anchors = [Anchor(body=spring.joint, position=spring.anchor) for spring in model.springs]
        self._tool = ToolModel(model.tool, scalars, device_, anchors)
        self._poses = ToolPoses(self._tool, num_envs, substeps, model.num_shapes, scalars, device_)
        self._bodies = BodyModel(model.bodies, model.springs, scalars, device_)
        self._motion = BodyMotion(len(model.bodies), num_envs, substeps, scalars, device_)
        body_width = num_envs * max(len(model.bodies), 1) * BODY_SIZE
        self.bodies = wp.zeros((num_slots * (substeps + 1), body_width), dtype=real, device=device_)
        self.bodies_bar = wp.zeros_like(self.bodies)
        self._nodes = grid_kernels(scalars, coupled=len(model.bodies) > 0)
        joints = max(self._tool.num_joints, 1)
        self.joint_q = wp.zeros((num_slots, num_envs, joints), dtype=real, device=device_)
        self.joint_dq = wp.zeros((num_slots, num_envs, joints), dtype=real, device=device_)
        self.material_of = wp.array(model.part_of_particle, dtype=int, device=device_)
        table = model.material_table.astype(scalars.numpy)
        self.material_table = wp.array(
            np.broadcast_to(table, (num_slots * num_envs, *table.shape)), dtype=real, device=device_
        )
        self.faults = wp.zeros((num_envs, len(FAULTS)), dtype=int, device=device_)
        self._momentum = wp.zeros(num_envs * n**3, dtype=vec4, device=device_)
        self._velocity = wp.zeros(num_envs * n**3, dtype=vec4, device=device_)
        self._touched = wp.zeros(num_envs * (n // BLOCK) ** 3, dtype=int, device=device_)
        self.asked = wp.zeros(num_slots * num_envs, dtype=int, device=device_)
        """Blocks that the particles of each slot's envs touched in its control step, whether there was room or not."""

        if device_.is_cpu:
            count = min(num_envs, num_threads or os.cpu_count() or 1)
            self._stride = 1
        else:
            count = 1
            self._stride = device_.sm_count * GPU_THREADS_PER_PROCESSOR
        bounds = [num_envs * i // count for i in range(count + 1)]
        self.shards = [_Shard(self, low, high - low, num_slots, device_) for low, high in pairwise(bounds)]
        self._transfers = transfer_kernels(scalars, model.laws, material_gradient)
        self._material_gradient = material_gradient
        self.shapes = self._shape_struct()
        self._exchange, self._exchange_bar = self._exchange_structs()
        self._forward = CapturedLaunches([partial(self._record_forward, s) for s in self.shards], device_)

        self._backward: CapturedLaunches | None = None
        if requires_grad:
            self._node_bar = wp.zeros(num_envs * n**3, dtype=vec4, device=device_)
            self.state_bar = wp.zeros((2, width), dtype=real, device=device_)
            self.result_row = substeps % 2
            constants = len(MATERIAL_FIELDS) - 1 if material_gradient else 0
            particles = num_envs * model.num_particles if material_gradient else 1
            self._constants_bar = wp.zeros((particles, max(constants, 1)), dtype=real, device=device_)
            self.material_bar = wp.zeros((num_envs, *table.shape), dtype=real, device=device_)
            self.joint_q_bar = wp.zeros((num_envs, joints), dtype=real, device=device_)
            self.joint_dq_bar = wp.zeros((num_envs, joints), dtype=real, device=device_)
            self._backward = CapturedLaunches(
                [partial(self._record_backward, s) for s in self.shards], device_
            )

    def grid_struct(self, pool: int) -> Any:
        """Constants that every kernel takes; `pool` is the number of blocks a control step's list holds."""
        model, scalars = self.model, self.scalars
        grid = grid_functions(scalars).Grid()
        grid.n = model.grid_size
        grid.blocks = model.grid_size // BLOCK
        grid.num_envs = self.num_envs
        grid.num_particles = model.num_particles
        grid.num_substeps = model.num_substeps
        grid.num_shapes = model.num_shapes
        grid.pool = pool
        grid.share = model.max_blocks * model.num_substeps
        grid.dx = 1.0 / model.grid_size
        grid.inv_dx = float(model.grid_size)
        grid.dt = model.dt_s
        grid.gravity = scalars.vec3(*model.gravity)
        grid.floor_friction = model.floor_friction
        grid.tool_friction = model.tool_friction
        grid.softness = model.softness
        grid.contact_law = CONTACT_LAWS[model.contact]
        grid.max_speed_sq = (MAX_STEP / (model.grid_size * model.dt_s)) ** 2
        # A weight this small adds nothing to any sum; dividing by it could overflow float32 in the adjoint.
        grid.min_mass = 1.0e-10 * model.lightest_particle
        return grid

    def forward(self, slot: int) -> None:
        """Run the control step whose inputs lie in `slot`."""
        self.slot.fill_(slot)
        self._forward.replay()

    def backward(self, slot: int) -> None:
        """Run the adjoint of the control step in `slot`; `forward(slot)` must have been its last use."""
        if self._backward is None:
            raise RuntimeError("this solver was built with requires_grad=False: it keeps no adjoints")
        self.slot.fill_(slot)
        self._backward.replay()

    def check(self) -> None:
        """Wait for the device; raise `BlockPoolError` if any control step so far overflowed the block pool."""
        for shard in self.shards:
            worst = max(int(shard.starts.numpy()[:, -1].max()), int(shard.most.numpy()[0]))
            if worst > shard.pool:
                self._momentum.zero_()
                shard.starts.zero_()
                shard.most.zero_()
                per_env = worst / (shard.num_envs * self.model.num_substeps)
                raise BlockPoolError(
                    f"particles touched {per_env:.0f} blocks of the grid per environment and substep, the pool "
                    f"holds max_blocks={self.model.max_blocks}; raise max_blocks"
                )

    def active_blocks(self, slot: int) -> np.ndarray:
        """Blocks touched in each substep of a slot, over all environments: (num_substeps,). Waits for the device."""
        return np.sum([np.diff(shard.starts.numpy()[slot]) for shard in self.shards], axis=0)

    def _launch(self, kernel: wp.Kernel, dim: int | tuple[int, ...], inputs: list) -> None:
        wp.launch(kernel, dim, inputs=inputs, device=self.device)

    def _shape_struct(self) -> Any:
        model, poses, device = self.model, self._poses, self.device
        owned = [(-1, shape) for shape in model.tool.shapes]
        owned += [(index, shape) for index, body in enumerate(model.bodies) for shape in body.shapes]
        shapes = self._nodes.Shapes()
        # Warp arrays of length 0 cannot be indexed in a kernel's signature: keep one unused element.
        kinds = [SHAPE_KINDS[shape.kind] for _, shape in owned] or [0]
        sizes = [(*shape.size, 0.0, 0.0, 0.0)[:3] for _, shape in owned] or [(0.0, 0.0, 0.0)]
        shapes.kind = wp.array(kinds, dtype=int, device=device)
        shapes.size = wp.array(sizes, dtype=self.scalars.vec3, device=device)
        shapes.body = wp.array([index for index, _ in owned] or [-1], dtype=int, device=device)
        shapes.pos, shapes.rot, shapes.lin, shapes.spin = poses.pos, poses.rot, poses.lin, poses.spin
        return shapes

    def _exchange_structs(self) -> tuple[Any, Any]:
        motion = self._motion
        exchange, adjoint = self._nodes.Exchange(), self._nodes.ExchangeAdjoint()
        exchange.num_bodies = len(self.model.bodies)
        exchange.centre, exchange.spin = motion.centre, motion.spin
        exchange.impulse, exchange.moment = motion.impulse, motion.moment
        adjoint.centre, adjoint.velocity = motion.centre_bar, motion.velocity_bar
        adjoint.spin, adjoint.turn = motion.spin_bar, motion.turn_bar
        adjoint.impulse, adjoint.moment = motion.impulse_bar, motion.moment_bar
        return exchange, adjoint

    def _record_forward(self, shard: _Shard) -> None:
        transfers, nodes = self._transfers, self._nodes
        grid, first, stride = shard.grid, shard.first_particle, self._stride
        self._record_poses(shard)
        self._launch(
            nodes.begin,
            shard.num_envs,
            [
                shard.first_env, self.num_envs, self.model.grid_size**3, self.model.num_substeps, self.slot,
                self.faults, shard.starts, shard.most, self.asked, self._momentum,
            ],
        )  # fmt: skip
        bodies = _BodyLaunches(self, shard) if self.model.bodies else None
        if bodies:
            bodies.begin()
        for n in range(self.model.num_substeps):
            if bodies:
                bodies.place(n)
            self._launch(
                transfers.scatter,
                shard.num_particles,
                [
                    grid, first, n, self.material_of, self.material_table, self.slot, shard.stamp, self.state,
                    self._touched, self.asked, shard.blocks, shard.starts, self._momentum, self.faults,
                ],
            )  # fmt: skip
            self._launch(
                nodes.cull,
                stride,
                [grid, self.shapes, n, stride, self.slot, shard.blocks, shard.starts, shard.mask],
            )
            self._launch(
                nodes.update,
                stride,
                [
                    grid, self.shapes, self._exchange, n, stride, self.slot, shard.blocks, shard.mask,
                    shard.starts, shard.stamp, self._momentum, self._velocity, shard.saved,
                ],
            )  # fmt: skip
            self._launch(
                transfers.gather,
                shard.num_particles,
                [grid, first, n, self.slot, self._velocity, self.state, self.faults],
            )
            if bodies:
                bodies.advance(n)

    def _record_backward(self, shard: _Shard) -> None:
        transfers, nodes, poses = self._transfers, self._nodes, self._poses
        grid, first, stride = shard.grid, shard.first_particle, self._stride
        substeps = self.model.num_substeps
        self._record_poses(shard)
        self._launch(
            kinematics_kernels(self.scalars).clear_wrenches,
            (substeps + 1, shard.num_envs),
            [
                shard.first_env, self.num_envs, self._tool.num_shapes, poses.num_shapes, self._tool.num_anchors,
                poses.force, poses.torque, poses.anchor_bar,
            ],
        )  # fmt: skip
        self._launch(
            nodes.begin_adj,
            shard.num_envs,
            [
                grid, shard.first_env, self.model.grid_size**3, self.slot, shard.starts, self.asked,
                self._node_bar,
            ],
        )  # fmt: skip
        bodies = _BodyLaunches(self, shard) if self.model.bodies else None
        if bodies:
            bodies.place(0, substeps)
            bodies.clear_adjoints()
        for n in reversed(range(substeps)):
            given, wanted = (n + 1) % 2, n % 2
            swept = [n, stride, self.slot, shard.blocks, shard.mask, shard.starts, shard.saved]
            if bodies:
                bodies.advance_adj(n)
            self._launch(nodes.restore, stride, [grid, self.shapes, *swept, self._velocity, self._node_bar])
            self._launch(
                transfers.gather_adj,
                shard.num_particles,
                [
                    grid, first, n, self.slot, self.state, self._velocity, self.state_bar, given, wanted,
                    self._node_bar,
                ],
            )  # fmt: skip
            self._launch(
                nodes.update_adj,
                stride,
                [
                    grid, self.shapes, self._exchange, self._exchange_bar, *swept, self._node_bar,
                    poses.force, poses.torque,
                ],
            )  # fmt: skip
            if bodies:
                bodies.place_adj(n)
            self._launch(
                transfers.scatter_adj,
                shard.num_particles,
                [
                    grid, first, n, self.material_of, self.material_table, self.slot, self.state,
                    self._node_bar, self.state_bar, wanted, self._constants_bar,
                ],
            )  # fmt: skip
            self._launch(
                transfers.strain_adj,
                shard.num_particles,
                [
                    grid, first, n, self.material_of, self.material_table, self.slot, self.state,
                    self.state_bar, given, wanted, self._constants_bar,
                ],
            )  # fmt: skip
        if self._material_gradient:
            self._launch(
                transfers.sum_constants_adj,
                (shard.num_envs, len(self.model.parts), len(MATERIAL_FIELDS) - 1),
                [
                    shard.first_env, self.model.num_particles, self.material_of, self._constants_bar,
                    self.material_bar,
                ],
            )  # fmt: skip
        self._record_poses_adj(shard)

    def _record_poses(self, shard: _Shard) -> None:
        tool, poses, model = self._tool, self._poses, self.model
        kernels = kinematics_kernels(self.scalars)
        self._launch(
            kernels.pose,
            (model.num_substeps + 1, shard.num_envs),
            [
                shard.first_env, self.num_envs, model.num_substeps, tool.num_joints, tool.num_shapes,
                poses.num_shapes, tool.num_anchors,
                tool.joint_kind, tool.joint_parent, tool.joint_axis, tool.joint_pos, tool.joint_rot,
                tool.shape_body, tool.shape_pos, tool.shape_rot, tool.anchor_body, tool.anchor_pos,
                self.slot, self.joint_q, self.joint_dq,
                poses.body_pos, poses.body_rot, poses.exact_pos, poses.exact_rot, poses.anchor,
            ],
        )  # fmt: skip
        self._launch(
            kernels.motion,
            (model.num_substeps + 1, shard.num_envs),
            [
                shard.first_env, self.num_envs, model.num_substeps, tool.num_shapes, poses.num_shapes,
                model.dt_s, poses.exact_pos, poses.exact_rot, poses.pos, poses.rot, poses.lin, poses.spin,
            ],
        )  # fmt: skip

    def _record_poses_adj(self, shard: _Shard) -> None:
        tool, poses, model = self._tool, self._poses, self.model
        if tool.num_joints == 0:
            return
        self._launch(
            kinematics_kernels(self.scalars).pose_adj,
            (shard.num_envs, tool.num_joints),
            [
                shard.first_env, self.num_envs, model.num_substeps, tool.num_joints, tool.num_shapes,
                poses.num_shapes, tool.num_anchors,
                tool.joint_kind, tool.joint_parent, tool.joint_axis, tool.shape_body, tool.anchor_body,
                poses.body_pos, poses.body_rot, poses.exact_pos, poses.force, poses.torque,
                poses.anchor, poses.anchor_bar, self.joint_q_bar, self.joint_dq_bar,
            ],
        )  # fmt: skip


class _BodyLaunches:
    """The launches that move the bodies of a shard, forward and back."""

    def __init__(self, solver: MpmSolver, shard: _Shard) -> None:
        self._solver, self._shard = solver, shard
        self._kernels = body_kernels(solver.scalars)
        model = solver.model
        self._batch = [shard.first_env, solver.num_envs, model.num_substeps, len(model.bodies)]
        self._floor_height = WALL_NODES / model.grid_size

    def begin(self) -> None:
        solver, motion = self._solver, self._solver._motion
        first_env, num_envs, substeps, bodies = self._batch
        solver._launch(
            self._kernels.clear_impulses,
            (substeps, self._shard.num_envs, bodies),
            [first_env, num_envs, bodies, motion.impulse, motion.moment],
        )

    def clear_adjoints(self) -> None:
        solver, motion = self._solver, self._solver._motion
        solver._launch(
            self._kernels.clear_adjoints,
            (solver.model.num_substeps, self._shard.num_envs, len(solver.model.bodies)),
            [
                *self._batch, solver.slot, motion.centre_bar, motion.velocity_bar, motion.spin_bar,
                motion.turn_bar, motion.impulse_bar, motion.moment_bar, solver.bodies_bar,
            ],
        )  # fmt: skip

    def place(self, first_substep: int, count: int = 1) -> None:
        """Velocities of bodies and poses of their shapes at the start of substeps, from the stored states."""
        solver, model, poses, motion = (
            self._solver,
            self._solver._bodies,
            self._solver._poses,
            self._solver._motion,
        )
        solver._launch(
            self._kernels.twist,
            (count, self._shard.num_envs, model.num_bodies),
            [
                *self._batch, first_substep, model.inertia, model.angular_axes, solver.slot, solver.bodies,
                motion.centre, motion.velocity, motion.spin,
            ],
        )  # fmt: skip
        solver._launch(
            self._kernels.place,
            (count, self._shard.num_envs, model.num_shapes),
            [
                *self._batch, first_substep, solver._tool.num_shapes, poses.num_shapes,
                model.shape_body, model.shape_pos, model.shape_rot, solver.slot, solver.bodies,
                motion.velocity, motion.spin, poses.pos, poses.rot, poses.lin, poses.spin,
            ],
        )  # fmt: skip

    def place_adj(self, n: int) -> None:
        solver, model, motion = self._solver, self._solver._bodies, self._solver._motion
        solver._launch(
            self._kernels.turn_adj,
            (self._shard.num_envs, model.num_bodies),
            [*self._batch, n, solver.slot, solver.bodies, motion.turn_bar, solver.bodies_bar],
        )
        self._launch_adj(
            self._kernels.twist,
            (1, self._shard.num_envs, model.num_bodies),
            [*self._batch, n, model.inertia, model.angular_axes, solver.slot],
            [
                (solver.bodies, solver.bodies_bar),
                (motion.centre, motion.centre_bar),
                (motion.velocity, motion.velocity_bar),
                (motion.spin, motion.spin_bar),
            ],
        )

    def advance(self, n: int) -> None:
        """Springs and floor, then the step of the bodies themselves."""
        for kernel, dim, constants, variables in self._advance_launches(n):
            self._solver._launch(kernel, dim, [*constants, *(value for value, _ in variables)])

    def advance_adj(self, n: int) -> None:
        for kernel, dim, constants, variables in reversed(self._advance_launches(n)):
            self._launch_adj(kernel, dim, constants, variables)

    def _advance_launches(self, n: int) -> list[tuple]:
        """(kernel, dim, constants, [(array, adjoint)]) of each launch of a substep, in order."""
        solver, model, poses, motion = (
            self._solver,
            self._solver._bodies,
            self._solver._poses,
            self._solver._motion,
        )
        kernels, envs, dt = self._kernels, self._shard.num_envs, solver.model.dt_s
        state = (solver.bodies, solver.bodies_bar)
        velocity, spin = (motion.velocity, motion.velocity_bar), (motion.spin, motion.spin_bar)
        gained = [(motion.impulse, motion.impulse_bar), (motion.moment, motion.moment_bar)]
        launches = []
        if model.num_springs:
            constants = [
                *self._batch, model.num_springs, n, dt, model.spring_body, model.spring_point,
                model.spring_stiffness, model.spring_damping, solver.slot,
            ]  # fmt: skip
            variables = [(poses.anchor, poses.anchor_bar), state, velocity, spin, *gained]
            launches.append((kernels.spring, (envs, model.num_springs), constants, variables))
        if model.num_points:
            constants = [
                *self._batch, n, dt, self._floor_height, model.point_body, model.point_pos, model.point_radius,
                model.floor_law, solver.slot,
            ]  # fmt: skip
            launches.append(
                (kernels.floor, (envs, model.num_points), constants, [state, velocity, spin, *gained])
            )
        constants = [
            *self._batch, n, dt, solver.scalars.vec3(*solver.model.gravity), model.mass, model.inertia,
            model.linear_axes, model.angular_axes, model.gravity_scale, solver.slot,
        ]  # fmt: skip
        launches.append((kernels.advance, (envs, model.num_bodies), constants, [*gained, state]))
        return launches

    def _launch_adj(self, kernel: wp.Kernel, dim: tuple[int, ...], constants: list, variables: list) -> None:
        """Run a kernel's own adjoint: constants have none, each variable comes with the array of its own."""
        wp.launch(
            kernel,
            dim,
            inputs=[*constants, *(value for value, _ in variables)],
            adj_inputs=[
                *(None if isinstance(constant, wp.array) else constant for constant in constants),
                *(adjoint for _, adjoint in variables),
            ],
            adj_outputs=[],
            adjoint=True,
            device=self._solver.device,
        )
