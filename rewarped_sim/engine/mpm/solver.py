"""The MPM solver: a control step of a batch of environments forward, and its adjoint back, as captured graphs.

Forward, per control step: poses of all tools, then per substep `scatter`, `cull`, `update`, `gather`.
Backward, per substep in reverse: `restore`, `gather_adj`, `update_adj`, `scatter_adj`; then wrenches on the tools'
shapes become adjoints of the joint coordinates. No tape: every adjoint buffer is written by exactly one kernel, and
what is scattered into is cleared by the kernel that lists it.
"""

import os
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import warp as wp

from rewarped_sim.engine.kinematics import ToolModel, ToolPoses, kinematics_kernels
from rewarped_sim.engine.mpm.grid import (
    BLOCK,
    BLOCK_NODES,
    grid_functions,
    grid_kernels,
)
from rewarped_sim.engine.mpm.model import MpmModel
from rewarped_sim.engine.mpm.state import PARTICLE_SIZE
from rewarped_sim.engine.mpm.transfers import transfer_kernels
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
        # Memory that is never touched is never committed by a CPU's operating system: no zeroing here.
        self.saved = wp.empty((num_slots, self.pool * BLOCK_NODES), dtype=scalars.vec4, device=device)
        self.stamp = wp.ones(1, dtype=int, device=device)


class MpmSolver:
    """A batch of environments of one `MpmModel` on a device.

    state: (num_slots * (num_substeps + 1), num_envs * num_particles * 24); row `slot * (num_substeps + 1)` is a
    control step's first state, the last row of the slot its result. joint_q, joint_dq: (num_slots, num_envs, joints).
    `forward(slot)` fills a slot from its first row and joint inputs; `backward(slot)` takes the adjoint of the
    result in `state_bar[result_row]` and leaves those of the inputs in `state_bar[0]`, `joint_q_bar`, `joint_dq_bar`.
    """

    def __init__(
        self,
        model: MpmModel,
        *,
        num_envs: int,
        num_slots: int,
        requires_grad: bool = True,
        scalars: Scalars = FLOAT32,
        device: str = "cpu",
        num_threads: int | None = None,
    ) -> None:
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
        self._tool = ToolModel(model.tool, scalars, device_)
        self._poses = ToolPoses(self._tool, num_envs, substeps, scalars, device_)
        joints = max(self._tool.num_joints, 1)
        self.joint_q = wp.zeros((num_slots, num_envs, joints), dtype=real, device=device_)
        self.joint_dq = wp.zeros((num_slots, num_envs, joints), dtype=real, device=device_)
        self.material_of = wp.array(model.part_of_particle, dtype=int, device=device_)
        table = model.material_table.astype(scalars.numpy)
        self.material_table = wp.array(
            np.broadcast_to(table, (num_envs, *table.shape)), dtype=real, device=device_
        )
        self._momentum = wp.zeros(num_envs * n**3, dtype=vec4, device=device_)
        self._velocity = wp.zeros(num_envs * n**3, dtype=vec4, device=device_)
        self._touched = wp.zeros(num_envs * (n // BLOCK) ** 3, dtype=int, device=device_)

        if device_.is_cpu:
            count = min(num_envs, num_threads or os.cpu_count() or 1)
            self._stride = 1
        else:
            count = 1
            self._stride = device_.sm_count * GPU_THREADS_PER_PROCESSOR
        bounds = [num_envs * i // count for i in range(count + 1)]
        self._shards = [_Shard(self, low, high - low, num_slots, device_) for low, high in pairwise(bounds)]
        self._forward = CapturedLaunches([partial(self._record_forward, s) for s in self._shards], device_)

        self._backward: CapturedLaunches | None = None
        if requires_grad:
            self._node_bar = wp.zeros(num_envs * n**3, dtype=vec4, device=device_)
            self.state_bar = wp.zeros((2, width), dtype=real, device=device_)
            self.result_row = substeps % 2
            self.joint_q_bar = wp.zeros((num_envs, joints), dtype=real, device=device_)
            self.joint_dq_bar = wp.zeros((num_envs, joints), dtype=real, device=device_)
            self._backward = CapturedLaunches(
                [partial(self._record_backward, s) for s in self._shards], device_
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
        grid.num_shapes = len(model.tool.shapes)
        grid.pool = pool
        grid.dx = 1.0 / model.grid_size
        grid.inv_dx = float(model.grid_size)
        grid.dt = model.dt_s
        grid.gravity = scalars.vec3(*model.gravity)
        grid.floor_friction = model.floor_friction
        grid.tool_friction = model.tool_friction
        grid.softness = model.softness
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
        for shard in self._shards:
            worst = int(shard.starts.numpy()[:, -1].max())
            if worst > shard.pool:
                self._momentum.zero_()
                shard.starts.zero_()
                per_env = worst / (shard.num_envs * self.model.num_substeps)
                raise BlockPoolError(
                    f"particles touched {per_env:.0f} blocks of the grid per environment and substep, the pool "
                    f"holds max_blocks={self.model.max_blocks}; raise max_blocks"
                )

    def active_blocks(self, slot: int) -> np.ndarray:
        """Blocks touched in each substep of a slot, over all environments: (num_substeps,). Waits for the device."""
        return np.sum([np.diff(shard.starts.numpy()[slot]) for shard in self._shards], axis=0)

    def _shapes(self) -> Any:
        shapes = grid_kernels(self.scalars).Shapes()
        shapes.kind = self._tool.shape_kind
        shapes.size = self._tool.shape_size
        shapes.pos = self._poses.pos
        shapes.rot = self._poses.rot
        shapes.lin = self._poses.lin
        shapes.spin = self._poses.spin
        return shapes

    def _launch(self, kernel: wp.Kernel, dim: int | tuple[int, int], inputs: list) -> None:
        wp.launch(kernel, dim, inputs=inputs, device=self.device)

    def _record_poses(self, shard: _Shard) -> None:
        tool, poses, model = self._tool, self._poses, self.model
        self._launch(
            kinematics_kernels(self.scalars).pose,
            (model.num_substeps + 1, shard.num_envs),
            [
                shard.first_env, self.num_envs, model.num_substeps, tool.num_joints, tool.num_shapes,
                tool.joint_kind, tool.joint_parent, tool.joint_axis, tool.joint_pos, tool.joint_rot,
                tool.shape_body, tool.shape_pos, tool.shape_rot,
                self.slot, self.joint_q, self.joint_dq,
                poses.body_pos, poses.body_rot, poses.exact_pos, poses.exact_rot,
            ],
        )  # fmt: skip
        self._launch(
            kinematics_kernels(self.scalars).motion,
            (model.num_substeps + 1, shard.num_envs),
            [
                shard.first_env, self.num_envs, model.num_substeps, tool.num_shapes, model.dt_s,
                poses.exact_pos, poses.exact_rot, poses.pos, poses.rot, poses.lin, poses.spin,
            ],
        )  # fmt: skip

    def _record_forward(self, shard: _Shard) -> None:
        transfers, nodes = transfer_kernels(self.scalars), grid_kernels(self.scalars)
        grid, first, shapes, stride = shard.grid, shard.first_particle, self._shapes(), self._stride
        self._record_poses(shard)
        self._launch(nodes.begin, 1, [self.slot, shard.starts])
        for n in range(self.model.num_substeps):
            self._launch(
                transfers.scatter,
                shard.num_particles,
                [
                    grid, first, n, self.material_of, self.material_table, self.slot, shard.stamp, self.state,
                    self._touched, shard.blocks, shard.starts, self._momentum,
                ],
            )  # fmt: skip
            self._launch(
                nodes.cull,
                stride,
                [grid, shapes, n, stride, self.slot, shard.blocks, shard.starts, shard.mask],
            )
            self._launch(
                nodes.update,
                stride,
                [
                    grid, shapes, n, stride, self.slot, shard.blocks, shard.mask, shard.starts, shard.stamp,
                    self._momentum, self._velocity, shard.saved,
                ],
            )  # fmt: skip
            self._launch(
                transfers.gather,
                shard.num_particles,
                [grid, first, n, self.slot, self._velocity, self.state],
            )

    def _record_backward(self, shard: _Shard) -> None:
        transfers, nodes, poses = transfer_kernels(self.scalars), grid_kernels(self.scalars), self._poses
        grid, first, shapes, stride = shard.grid, shard.first_particle, self._shapes(), self._stride
        tool, model = self._tool, self.model
        self._record_poses(shard)
        self._launch(
            kinematics_kernels(self.scalars).clear_wrenches,
            (model.num_substeps + 1, shard.num_envs),
            [shard.first_env, self.num_envs, tool.num_shapes, poses.force, poses.torque],
        )
        for n in reversed(range(model.num_substeps)):
            given, wanted = (n + 1) % 2, n % 2
            swept = [grid, shapes, n, stride, self.slot, shard.blocks, shard.mask, shard.starts, shard.saved]
            self._launch(nodes.restore, stride, [*swept, self._velocity, self._node_bar])
            self._launch(
                transfers.gather_adj,
                shard.num_particles,
                [
                    grid, first, n, self.slot, self.state, self._velocity, self.state_bar, given, wanted,
                    self._node_bar,
                ],
            )  # fmt: skip
            self._launch(nodes.update_adj, stride, [*swept, self._node_bar, poses.force, poses.torque])
            self._launch(
                transfers.scatter_adj,
                shard.num_particles,
                [
                    grid, first, n, self.material_of, self.material_table, self.slot, self.state,
                    self._node_bar, self.state_bar, given, wanted,
                ],
            )  # fmt: skip
        if tool.num_joints:
            self._launch(
                kinematics_kernels(self.scalars).pose_adj,
                (shard.num_envs, tool.num_joints),
                [
                    shard.first_env, self.num_envs, model.num_substeps, tool.num_joints, tool.num_shapes,
                    tool.joint_kind, tool.joint_parent, tool.joint_axis, tool.shape_body,
                    poses.body_pos, poses.body_rot, poses.exact_pos, poses.force, poses.torque,
                    self.joint_q_bar, self.joint_dq_bar,
                ],
            )  # fmt: skip
