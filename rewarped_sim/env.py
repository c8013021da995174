"""Batched episodes over a task: clock, masked reset, terminal observation, isolation of environments that break.

Nothing in `step` waits for the device. A reset selects between the stepped and a fresh state, so that the gradient of
every other env stays whole; an env whose state or reward is not finite is reset, passes no gradient on and is counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import warp as wp
from torch import Tensor

from policy_runner.contract import ObsTerm, PolicyContract
from rewarped_sim.material_spread import MaterialSpread
from rewarped_sim.random import uniform
from rewarped_sim.scene import Scene
from rewarped_sim.task import State, Task
from rewarped_sim.torch_bridge import make_bridge
from sapo_learner.vec_env import Obs, StepResult

MAX_MAGNITUDE = 1.0e6
"""A state entry beyond this is as broken as one that is not finite."""
_CONSTANTS = ("materials", "parameters")
"""State entries that nothing moves: an elastic modulus in Pa may well be larger."""
_SAVED = ("task", "clock", "episode", "action", "nonfinite", "seed")
"""What `state_dict` holds besides the state's own entries."""
_STEP_STREAM = 0x5354
"""Keeps what tasks draw in the middle of an episode apart from the draws of the start states."""
_STEPS_PER_EPISODE = 1 << 20
"""Room for counters of draws within an episode."""


class DeviceError(RuntimeError):
    """The device asked for is not there."""


class StateError(ValueError):
    """A state, or constants given, do not fit this env; the message names the field."""


class Env:
    """A `sapo_learner.vec_env.VecEnv` over one task.

    Raises `DeviceError` where `device` does not exist.
    """

    def __init__(
        self,
        task: Task,
        *,
        num_envs: int,
        device: torch.device,
        seed: int,
        horizon: int,
        storage: str = "auto",
        material_spread: float = 0.0,
        parameter_gradient: bool = False,
        num_threads: int | None = None,
        first_env: int = 0,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be >= 1, got {num_envs}")
        if num_threads is not None and num_threads < 1:
            raise ValueError(f"num_threads must be >= 1, got {num_threads}")
        self.task = task
        self.num_envs = num_envs
        self.first_env = first_env
        """Number of the first env here where these are a share of more; it decides what they draw."""
        self.device = device
        self.seed = seed
        self.task_name = task.name
        self.obs_spec: tuple[ObsTerm, ...] = task.obs_spec
        self.action_dim = task.action.size
        self.joint_names = task.joint_names
        self.control_dt_s = task.control_dt_s
        self.max_episode_steps = task.max_episode_steps
        self.model: Any = task.build()
        """The physics of one environment: a model of the engine that the task takes."""
        self._material_spread = MaterialSpread(self.model, material_spread, device, first_env=first_env)
        self._bridge = make_bridge(
            self.model,
            num_envs=num_envs,
            device=device,
            horizon=horizon,
            storage=storage,
            parameter_gradient=parameter_gradient,
            num_threads=num_threads,
        )
        self.materials: Tensor | None = None
        """MPM: constants of each env to run with instead of the task's own, (num_envs, parts, len(MATERIAL_FIELDS)),
        columns as in `engine.mpm.material_table`. With `material_gradient` they may require a gradient."""
        self.parameters: Tensor | None = None
        """Articulations: parameters of each env to run with instead of the task's own, (num_envs, size), as
        `engine.articulation.parameters` lays them out. With `parameter_gradient` they may require a gradient."""
        self._clock = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self._episode = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self._action = torch.zeros(num_envs, self.action_dim, device=device)
        self.nonfinite = torch.zeros(num_envs, dtype=torch.int64, device=device)
        """How often each env's state or reward broke, for whatever reason, and it was reset: (num_envs,) int64."""
        self.faults = {name: torch.zeros_like(self.nonfinite) for name in self._bridge.engine.fault_names}
        """How often each of the engine's faults was the reason, (num_envs,) int64 each."""
        self._state = self._fresh(self._episode)
        taken = sorted(set(_SAVED).intersection(self._bridge.engine.named(self._state)))
        if taken:
            raise ValueError(
                f"task {task.name!r}: {taken[0]!r} cannot be a state entry; taken: {list(_SAVED)}"
            )

    # ---- VecEnv ------------------------------------------------------------------------------------------------

    def reset(self) -> Obs:
        """Start a new episode in every env; returns its first observation."""
        self._bridge.rewind()
        self._episode = self._episode + 1
        self._clock = torch.zeros_like(self._clock)
        self._action = torch.zeros_like(self._action)
        self._state = self._fresh(self._episode)
        return self.task.observe(self._state, self._action)

    def step(self, action: Tensor) -> StepResult:
        """Advance by one control step; action (num_envs, action_dim), of any precision, is clipped to [-1, 1]."""
        if tuple(action.shape) != (self.num_envs, self.action_dim):
            raise ValueError(
                f"action: expected {(self.num_envs, self.action_dim)}, got {tuple(action.shape)}"
            )
        action = action.float().clamp(-1.0, 1.0)
        after = self._physics(action)

        # What a broken env shows from here on is its next start: finite, and without a gradient.
        faults = self._bridge.faults
        healthy = _healthy(after) & ~faults.any(dim=1)
        fresh = self._fresh(self._episode + 1)
        after = _select(healthy, after, fresh)
        terms = self.task.reward(after, action)
        healthy = healthy & torch.stack(list(terms.values())).isfinite().all(dim=0)
        terms = {name: torch.where(healthy, term, 0.0) for name, term in terms.items()}
        reward = torch.stack(list(terms.values())).sum(dim=0)
        terminated = self.task.terminated(after) | ~healthy
        after = self.task.after_step(after, self._draw)
        terminal_obs = self.task.observe(after, action)

        self._clock = self._clock + 1
        truncated = (self._clock >= self.max_episode_steps) & healthy
        done = terminated | truncated
        self._episode = self._episode + done
        self.nonfinite += ~healthy
        for i, count in enumerate(self.faults.values()):
            count += faults[:, i]
        self._state = _select(~done, after, fresh)
        self._clock = torch.where(done, 0, self._clock)
        action = torch.where(done[:, None], 0.0, action)
        self._action = action.detach()
        info = {f"reward/{name}": term.detach() for name, term in terms.items()}
        info["nonfinite"] = ~healthy
        info |= {f"fault/{name}": faults[:, i] for i, name in enumerate(self.faults)}
        return StepResult(
            obs=self.task.observe(self._state, action),
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            terminal_obs=terminal_obs,
            info=info,
        )

    def detach(self) -> Obs:
        """Cut the gradient history and start a new window; returns the observation of the same physical state."""
        self._bridge.rewind()
        self._state = {name: value.detach() for name, value in self._state.items()}
        return self.task.observe(self._state, self._action)

    def state_dict(self) -> dict[str, Any]:
        """Named physical state (MPM: x, v, C, F, joint_q, ...), clocks, random state and counters; copies."""
        named = self._bridge.engine.named(self._state)
        return {
            "task": self.task_name,
            **{name: value.detach().clone() for name, value in named.items()},
            "clock": self._clock.clone(),
            "episode": self._episode.clone(),
            "action": self._action.clone(),
            "nonfinite": self.nonfinite.clone(),
            "seed": self.seed,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave; raises `StateError` naming the field that does not fit."""
        expected = self.state_dict()
        missing = sorted(set(expected) - set(state))
        if missing:
            raise StateError(f"env state: field {missing[0]!r} is missing")
        if state["task"] != self.task_name:
            raise StateError(f"env state: task: expected {self.task_name!r}, got {state['task']!r}")
        for name, value in expected.items():
            if isinstance(value, Tensor) and state[name].shape != value.shape:
                raise StateError(
                    f"env state: {name}: expected {tuple(value.shape)}, got {tuple(state[name].shape)}"
                )
        self._bridge.rewind()

        def restored(name: str) -> Tensor:
            return state[name].detach().to(self.device, expected[name].dtype, copy=True)

        engine = self._bridge.engine
        self._state = engine.from_named({name: restored(name) for name in engine.named(self._state)})
        self._clock, self._episode = restored("clock"), restored("episode")
        self._action, self.nonfinite = restored("action"), restored("nonfinite")
        self.seed = int(state["seed"])

    # ---- for people and for robots -----------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """State of all envs by name, with the gradients that it carries; see `rewarped_sim.task.State`."""
        return dict(self._state)

    @property
    def joint_q(self) -> Tensor:
        """Positions of `joint_names`, (num_envs, joints), without gradient."""
        return self.task.joint_position(self._state).detach()

    @property
    def joint_qd(self) -> Tensor:
        """Velocities of `joint_names`, (num_envs, joints), without gradient."""
        return self.task.joint_velocity(self._state).detach()

    @property
    def goal_position(self) -> Tensor | None:
        """Where each env's policy is told to go, (num_envs, 3) [m] in the task's frame; None where it is not."""
        term = next((term for term in self.obs_spec if term.kind == "goal_position"), None)
        if term is None:
            return None
        return self.task.observe(self._state, self._action)[term.name].detach() / term.scale

    @property
    def bad_adjoints(self) -> Tensor:
        """How often each env's gradient was not finite, or beyond 1e12, and was dropped, (num_envs,) int64."""
        return self._bridge.bad_adjoints

    @torch.no_grad()
    def look_ahead(self, action: Tensor) -> tuple[State, dict[str, Tensor]]:
        """State, by the names of `state_dict`, and reward terms after this action, before anything broken is reset.

        Nothing changes. Valid until the next step.
        """
        action = action.float().clamp(-1.0, 1.0)
        after = self._physics(action)
        return self._bridge.engine.named(after), self.task.reward(after, action)

    def scene(self, index: int = 0) -> Scene:
        """What there is to see in one env; copies to the host."""
        return self.task.scene(self._state, self._action, index)

    def contract(self, *, policy_name: str, train: Mapping[str, Any]) -> PolicyContract:
        """The contract of a policy trained here."""
        return PolicyContract(
            policy_name=policy_name,
            task=self.task_name,
            control_dt_s=self.control_dt_s,
            obs_terms=self.obs_spec,
            action=self.task.action,
            default_joint_pos=self.task.default_joint_pos,
            point_cloud=self.task.point_cloud,
            train=dict(train),
        )

    def memory_report(self) -> str:
        """One line: what a window of control steps takes."""
        return (
            f"{self.task_name}: {self.num_envs} envs of {self._bridge.engine.describe()}; "
            f"{self._bridge.plan.describe()}"
        )

    def _physics(self, action: Tensor) -> State:
        before = self._state
        controls = self.task.control(before, action)
        return {**before, **self._bridge.step({**before, **self._given_constants(), **controls})}

    def _given_constants(self) -> State:
        """What to run with instead of the task's own; raises `StateError` where this physics has no such thing."""
        given = {"materials": self.materials, "parameters": self.parameters}
        given = {name: value for name, value in given.items() if value is not None}
        for name in given:
            known = [port.name for port in self._bridge.engine.ports]
            if name not in known:
                raise StateError(f"env.{name}: {self.task_name} has none; its physics takes {known}")
        return given

    def _fresh(self, episode: Tensor) -> State:
        state = self.task.initial_state(self._uniform(self.seed, episode, self.task.num_random))
        return state | self._material_spread(self.seed, episode)

    def _draw(self, counter: Tensor, count: int) -> Tensor:
        """Uniform numbers in [0, 1), (num_envs, count), by seed, env, episode and `counter` (num_envs,) int64."""
        return self._uniform(self.seed + _STEP_STREAM, self._episode * _STEPS_PER_EPISODE + counter, count)

    def _uniform(self, seed: int, episode: Tensor, count: int) -> Tensor:
        return uniform(seed, episode, count, first_env=self.first_env)


def _healthy(state: State) -> Tensor:
    """Envs whose whole state is finite and of sane size, (num_envs,) bool; a NaN compares false."""
    largest = [
        value.detach().reshape(len(value), -1).abs().amax(dim=1)
        for name, value in state.items()
        if value.is_floating_point() and name not in _CONSTANTS
    ]
    return torch.stack(largest).amax(dim=0) < MAX_MAGNITUDE


def _select(keep: Tensor, kept: State, other: State) -> State:
    """Per env: `kept` where `keep`, else `other`; gradients flow to what was chosen only."""
    return {
        name: torch.where(keep.view(-1, *[1] * (value.dim() - 1)), value, other[name])
        for name, value in kept.items()
    }


def resolve_device(name: str) -> torch.device:
    """A torch device by name; raises `DeviceError` with what there is. Never falls back silently."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"unknown device {name!r}; known: cpu, cuda, cuda:<index>") from error
    if device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index is not None):
        raise DeviceError(f"device {name!r} is not supported; known: cpu, cuda, cuda:<index>")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = device.index or 0
        if index >= count or not wp.is_cuda_available():
            raise DeviceError(
                f"device {name!r}: torch sees {count} CUDA devices and Warp "
                f"{len(wp.get_cuda_devices()) if wp.is_cuda_available() else 0}. Use device=cpu, or install an "
                "NVIDIA driver (R580 or newer) and a CUDA build of torch"
            )
        return torch.device("cuda", index)
    return device
