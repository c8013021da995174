"""The articulation solver: a control step of a batch of worlds forward, and its adjoint back, as captured graphs.

Forward, per substep: the residual at zero acceleration; then `advance` solves and integrates. Backward, per substep in
reverse: `advance_adj` gives the seed of the residual's adjoint; the residual is run again at the true acceleration and
then its kernels' adjoints, in reverse order. See `dynamics`.
"""

import os
from functools import partial
from itertools import pairwise

import warp as wp

from rewarped_sim.engine.articulation.contact import GroundContact
from rewarped_sim.engine.articulation.dynamics import dynamics_kernels
from rewarped_sim.engine.articulation.model import ArticulationModel
from rewarped_sim.engine.articulation.muscles import Muscles
from rewarped_sim.engine.articulation.parameters import ParameterLayout, default_parameters
from rewarped_sim.engine.articulation.shape_contact import ShapePairs
from rewarped_sim.engine.articulation.step import step_kernels
from rewarped_sim.engine.articulation.tree import Tree
from rewarped_sim.engine.articulation.workspace import adjoint_of, by_world, make_links, make_worlds
from rewarped_sim.engine.scalars import FLOAT32, Scalars
from rewarped_sim.engine.trajectory import CapturedLaunches


class ArticulationSolver:
    """A batch of worlds of one `ArticulationModel` on a device.

    joint_q: (num_slots * (num_substeps + 1), num_worlds, coordinates), joint_qd: (..., num_worlds, dofs); row
    `slot * (num_substeps + 1)` is a control step's first state, the last row of the slot its result. Inputs of a slot:
    joint_f, joint_target (num_slots, num_worlds, dofs): generalised forces [N m or N] and targets of drives [rad or m];
    activation (num_slots, num_worlds, muscles), 0 to 1; parameters (num_slots, num_worlds, ParameterLayout.size).
    `forward(slot)` fills the slot, and joint_qdd (num_slots * num_substeps, num_worlds, dofs) with the accelerations.
    `backward(slot)` turns the adjoint of its result in joint_q_bar (num_worlds, coordinates) and joint_qd_bar
    (num_worlds, dofs) into that of its first state, and leaves those of the inputs in joint_f_bar, joint_target_bar,
    activation_bar and parameters_bar.
    """

    def __init__(
        self,
        model: ArticulationModel,
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
        self.tree = Tree(model)
        self._links = make_links(self.tree, scalars, self.device)
        self._worlds = make_worlds(self.tree, num_envs, scalars, self.device, gradient=requires_grad)
        self._forces = [
            forces
            for forces in (
                GroundContact(self.tree, scalars, self.device),
                ShapePairs(self.tree, num_envs, scalars, self.device),
                Muscles(self.tree, scalars, self.device),
            )
            if forces.count > 0
        ]
        self._allocate()
        self.slot = wp.zeros(1, dtype=int, device=self.device)
        count = min(num_envs, num_threads or os.cpu_count() or 1) if self.device.is_cpu else 1
        bounds = [num_envs * i // count for i in range(count + 1)]
        shards = [(low, high - low) for low, high in pairwise(bounds)]
        self._forward = CapturedLaunches(
            [partial(self._record_forward, *shard) for shard in shards], self.device
        )
        self._backward: CapturedLaunches | None = None
        if requires_grad:
            self._bar = adjoint_of(self._worlds, scalars)
            self.joint_q_bar, self.joint_qd_bar = _world_first(self._bar.q), _world_first(self._bar.qd)
            self.joint_f_bar, self.joint_target_bar = (
                _world_first(self._bar.force),
                _world_first(self._bar.target),
            )
            self.activation_bar = _world_first(self._bar.activation)
            self.parameters_bar = _world_first(self._bar.parameters)
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

    def _allocate(self) -> None:
        """Rows of the trajectory and inputs of its slots; both orders of indices name the same memory."""
        model, tree, slots = self.model, self.tree, self.num_slots
        substeps, scalars = model.num_substeps, self.scalars

        def rows(count: int, size: int) -> wp.array:
            shape = (count, self.num_envs, size) if self.device.is_cpu else (count, size, self.num_envs)
            array = wp.zeros(shape, dtype=scalars.real, device=self.device)
            return array.transpose((0, 2, 1)) if self.device.is_cpu else array

        record = step_kernels(scalars).Record()
        record.num_substeps = substeps
        record.q = rows(slots * (substeps + 1), model.num_coordinates)
        record.qd = rows(slots * (substeps + 1), model.num_dofs)
        record.qdd = rows(slots * substeps, model.num_dofs)
        record.factor = rows(slots * substeps, tree.factor_size)
        self._record = record
        self._inputs = [
            rows(slots, model.num_dofs),
            rows(slots, model.num_dofs),
            rows(slots, max(len(model.muscles), 1)),
            rows(slots, ParameterLayout.of(model).size),
        ]
        self.joint_q, self.joint_qd = _world_first(record.q), _world_first(record.qd)
        self.joint_qdd = _world_first(record.qdd)
        self.joint_f, self.joint_target, self.activation, self.parameters = map(_world_first, self._inputs)
        self.parameters.assign(
            default_parameters(model)
            .astype(scalars.numpy)[None, None]
            .repeat(slots, 0)
            .repeat(self.num_envs, 1)
        )
        self._inertia = step_kernels(scalars).Composite()
        for name, dtype in (("mass", scalars.real), ("first", scalars.vec3), ("second", scalars.mat33)):
            setattr(self._inertia, name, by_world(tree.num_links, self.num_envs, dtype, self.device))

    def _record_forward(self, first: int, count: int) -> None:
        step = step_kernels(self.scalars)
        activations, parameters = self._inputs[2].shape[1], self._inputs[3].shape[1]
        self._launch(
            step.begin,
            count,
            [
                first,
                self._links,
                activations,
                parameters,
                self.slot,
                *self._inputs,
                self._record,
                self._worlds,
            ],
        )
        for n in range(self.model.num_substeps):
            for kernel, dim, arguments, _ in self._residual(first, count):
                self._launch(kernel, dim, arguments)
            self._launch(
                step.advance,
                count,
                [first, n, self._links, self.slot, self._inertia, self._record, self._worlds],
            )

    def _record_backward(self, first: int, count: int) -> None:
        step = step_kernels(self.scalars)
        activations, parameters = self._inputs[2].shape[1], self._inputs[3].shape[1]
        self._launch(
            step.begin_adj,
            count,
            [first, self._links, activations, parameters, self.slot, *self._inputs, self._worlds, self._bar],
        )
        for n in reversed(range(self.model.num_substeps)):
            self._launch(
                step.advance_adj,
                count,
                [first, n, self._links, self.slot, self._record, self._worlds, self._bar],
            )
            residual = self._residual(first, count)
            for kernel, dim, arguments, _ in residual:
                self._launch(kernel, dim, arguments)
            for kernel, dim, arguments, has_adjoint in reversed(residual):
                if has_adjoint:
                    self._launch_adj(kernel, dim, arguments)

    def _residual(self, first: int, count: int) -> list[tuple[wp.Kernel, int, list, bool]]:
        """The launches that compute the residual of the workspace's state and acceleration, in order.

        Each is (kernel, dim, arguments, whether it has an adjoint).
        """
        dynamics = dynamics_kernels(self.scalars)
        own = [first, self._links, self._worlds]
        external = [
            launch for forces in self._forces for launch in forces.launches(first, count, self._worlds)
        ]
        return [
            (dynamics.place, count, own, True),
            (dynamics.sweep_out, count, own, True),
            (dynamics.inertial_force, count * self.tree.num_links, own, True),
            *external,
            (dynamics.sweep_in, count, own, True),
            (dynamics.residual, count * self.model.num_dofs, own, True),
        ]

    def _launch(self, kernel: wp.Kernel, dim: int, arguments: list) -> None:
        wp.launch(kernel, dim, inputs=arguments, device=self.device)

    def _launch_adj(self, kernel: wp.Kernel, dim: int, arguments: list) -> None:
        """Run a kernel's own adjoint: the workspace's arrays bring theirs along, all else is constant."""
        wp.launch(
            kernel,
            dim,
            inputs=arguments,
            adj_inputs=[None if isinstance(argument, wp.array) else argument for argument in arguments],
            adj_outputs=[],
            adjoint=True,
            device=self.device,
        )


def _world_first(array: wp.array) -> wp.array:
    """The same memory with the last two indices exchanged: (..., world, k)."""
    *outer, k, world = range(array.ndim)
    return array.transpose((*outer, world, k))


def slot_bytes(model: ArticulationModel) -> int:
    """Memory of one world's control step in float32: states, accelerations, factors of the mass matrix, and inputs."""
    state = model.num_coordinates + model.num_dofs
    substep = state + model.num_dofs + Tree(model).factor_size
    inputs = 2 * model.num_dofs + max(len(model.muscles), 1) + ParameterLayout.of(model).size
    return 4 * (model.num_substeps * substep + state + inputs)
