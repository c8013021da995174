"""The FEM solver: a control step of a batch of soft bodies forward, and its adjoint back, as captured graphs.

Forward, per substep: `pull`, the forces of all tetrahedra on their corners, then `move`, in which each vertex adds up
those of the tetrahedra around it. Backward, per substep in reverse: `pull_adj`, then `move_adj`.
"""

import os
from functools import partial
from itertools import pairwise
from typing import Any

import warp as wp

from rewarped_sim.engine.fem.body import make_body
from rewarped_sim.engine.fem.elasticity import elasticity_kernels
from rewarped_sim.engine.fem.model import STATE_SIZE, FemModel
from rewarped_sim.engine.fem.motion import motion_kernels
from rewarped_sim.engine.scalars import FLOAT32, Scalars
from rewarped_sim.engine.trajectory import CapturedLaunches


class FemSolver:
    """A batch of environments of one `FemModel` on a device.

    state: (num_slots * (num_substeps + 1), num_envs, num_vertices, 6), positions [m] and velocities [m/s]; row `slot *
    (num_substeps + 1)` is a control step's first state, the last row of the slot its result. activation: (num_slots,
    num_envs, num_tets). `forward(slot)` fills the slot. `backward(slot)` turns the adjoint of its result in state_bar
    (num_envs, num_vertices, 6) into that of its first state, and leaves the activation's in activation_bar (num_envs,
    num_tets). In memory the environment is the last index of all of these; see `lanes`.
    """

    def __init__(
        self,
        model: FemModel,
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
        self.slot = wp.zeros(1, dtype=int, device=self.device)
        self._body = make_body(model, num_envs, scalars, self.device)
        self._elasticity = elasticity_kernels(scalars)
        self._motion = motion_kernels(scalars, model.ground.law if model.ground else "regularized")
        rows = num_slots * (model.num_substeps + 1)
        self._state = self._zeros(rows, model.num_vertices, STATE_SIZE)
        self._activation = self._zeros(num_slots, model.num_tets)
        self.state = self._env_second(self._state)
        self.activation = self._env_second(self._activation)
        shards = self._shards(num_threads)
        self._forward = CapturedLaunches(
            [partial(self._record_forward, *shard) for shard in shards], self.device
        )
        self._backward: CapturedLaunches | None = None
        if requires_grad:
            self._state_bar = self._zeros(1, model.num_vertices, STATE_SIZE)
            self._activation_bar = self._zeros(1, model.num_tets)
            self.state_bar = self._env_second(self._state_bar)[0]
            self.activation_bar = self._env_second(self._activation_bar)[0]
            self._backward = CapturedLaunches(
                [partial(self._record_backward, *shard) for shard in shards], self.device
            )

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

    def _zeros(self, *shape: int) -> wp.array:
        return wp.zeros((*shape, self._body.width), dtype=self.scalars.real, device=self.device)

    def _env_second(self, array: wp.array) -> Any:
        """The same memory as (first, num_envs, ...), without the environments that only fill up the last lanes."""
        first, *others, env = range(array.ndim)
        return array.transpose((first, env, *others))[:, : self.num_envs]

    def _shards(self, num_threads: int | None) -> list[tuple[range, int, wp.array]]:
        """For each thread its first environments, how many groups of lanes it takes at once, and room for forces.

        A CPU thread takes one group after the other through all substeps: what it works on stays in its cache.
        """
        lanes, width, model = self._body.lanes, self._body.width, self.model
        if self.device.is_cpu:
            count = min(width // lanes, num_threads or os.cpu_count() or 1)
            bounds = [width // lanes * i // count * lanes for i in range(count + 1)]
            parts, groups = [range(low, high, lanes) for low, high in pairwise(bounds)], 1
        else:
            parts, groups = [range(1)], width
        size = model.num_tets * 4 * STATE_SIZE * groups * lanes
        return [(part, groups, wp.empty(size, dtype=self.scalars.real, device=self.device)) for part in parts]

    def _record_forward(self, first_envs: range, groups: int, corners: wp.array) -> None:
        model, state, activation = self.model, self._state.flatten(), self._activation.flatten()
        for first_env in first_envs:
            for n in range(model.num_substeps):
                common = [first_env, groups, n, self._body, self.slot]
                self._launch(
                    self._elasticity.pull, (model.num_tets, groups), [*common, state, activation, corners]
                )
                self._launch(self._motion.move, (model.num_vertices, groups), [*common, corners, state])

    def _record_backward(self, first_envs: range, groups: int, corners: wp.array) -> None:
        model, state, activation = self.model, self._state.flatten(), self._activation.flatten()
        state_bar, activation_bar = self._state_bar.flatten(), self._activation_bar.flatten()
        for first_env in first_envs:
            for n in reversed(range(model.num_substeps)):
                common = [first_env, groups, n, self._body, self.slot]
                self._launch(
                    self._elasticity.pull_adj,
                    (model.num_tets, groups),
                    [*common, state, activation, state_bar, activation_bar, corners],
                )
                self._launch(
                    self._motion.move_adj,
                    (model.num_vertices, groups),
                    [*common, state, corners, state_bar],
                )

    def _launch(self, kernel: wp.Kernel, dim: tuple[int, int], arguments: list) -> None:
        wp.launch(kernel, dim, inputs=arguments, device=self.device)
