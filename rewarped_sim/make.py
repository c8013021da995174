"""Build an environment by task name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewarped_sim.env import Env


def make(
    task: str,
    *,
    num_envs: int = 1,
    device: str = "cpu",
    seed: int = 0,
    horizon: int = 32,
    requires_grad: bool = True,
    storage: str = "auto",
    material_spread: float = 0.0,
    material_gradient: bool = False,
    parameter_gradient: bool = False,
    num_threads: int | None = None,
    first_env: int = 0,
    **overrides: Any,
) -> Env:
    """Make the environment of a registered task.

    Args:
        task: a name from `rewarped_sim.registry.task_names()`.
        num_envs: environments in the batch.
        device: `cpu`, `cuda` or `cuda:<index>`; there is no silent fallback.
        seed: together with env and episode index it decides every random start.
        horizon: control steps between two calls of `detach()` at most.
        requires_grad: False builds a lean, forward-only simulator.
        storage: `store` every substep of a window, `recompute` them in the backward pass, or `auto`: as memory allows.
        material_spread: vary stiffness and yield stress of every env and episode by up to this share, in [0, 1).
        material_gradient: let gradients flow into `Env.materials`, the constants of each env (tasks with particles).
        parameter_gradient: let gradients flow into `Env.parameters`, those of each env (articulated tasks).
        num_threads: CPU threads for physics; all cores by default.
        first_env: make envs `first_env` and following of a larger batch: each is what it would be in that.
        overrides: settings of the task's `Config`.

    Raises:
        UnknownTaskError, ConfigError: with the nearest match and the choices, or what does not go together.
        DeviceError: the device is not there.
    """
    from rewarped_sim import registry  # torch and Warp load here, not with the package
    from rewarped_sim.engine.compilation import compilation_logged
    from rewarped_sim.env import Env, resolve_device

    torch_device = resolve_device(device)
    new_task = registry.new_task(task, overrides, torch_device)
    with compilation_logged():
        return Env(
            new_task,
            num_envs=num_envs,
            device=torch_device,
            seed=seed,
            horizon=horizon if requires_grad else 0,
            storage=storage,
            material_spread=material_spread,
            parameter_gradient=material_gradient or parameter_gradient,
            num_threads=num_threads,
            first_env=first_env,
        )
