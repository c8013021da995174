"""A point mass on a line that should rest at the origin: small enough to check the learner by hand."""

import torch
from torch import Tensor

from policy_runner.contract import ActionSpec, ObsTerm, PointCloudSpec, PolicyContract
from sapo_learner.vec_env import Obs, StepResult

DT_S = 0.1
LIMIT_M = 2.0
CLOUD = torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.2, 0.0], [0.0, 0.0, 0.3], [0.1, 0.2, 0.3]])


class PointMass:
    """Semi-implicit Euler, x'' = 5 a. Beyond 2 m an episode fails; `max_episode_steps` cut it off."""

    def __init__(
        self,
        *,
        num_envs: int = 2,
        max_episode_steps: int = 12,
        with_cloud: bool = False,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        start: Tensor | None = None,
    ) -> None:
        self.num_envs, self.max_episode_steps, self.dtype = num_envs, max_episode_steps, dtype
        self.action_dim, self.device = 1, torch.device("cpu")
        cloud = (ObsTerm(name="points", kind="cloud", shape=(len(CLOUD), 3)),) if with_cloud else ()
        self.obs_spec = (
            ObsTerm(name="x", kind="joint_position", shape=(1,)),
            *cloud,
            ObsTerm(name="v", kind="joint_velocity", shape=(1,)),
        )
        self._start = start
        self._generator = torch.Generator().manual_seed(seed)
        self.reset()

    def reset(self) -> Obs:
        self._x, self._v = self._fresh()
        self._clock = torch.zeros(self.num_envs, dtype=torch.int64)
        return self._observe()

    def step(self, action: Tensor) -> StepResult:
        a = action.clamp(-1.0, 1.0)
        self._v = self._v + 5.0 * DT_S * a
        self._x = self._x + DT_S * self._v
        self._clock = self._clock + 1
        terms = {"near": -self._x.square().squeeze(1), "calm": -0.1 * self._v.square().squeeze(1)}
        terminal_obs = self._observe()
        terminated = self._x.detach().abs().squeeze(1) > LIMIT_M
        truncated = self._clock >= self.max_episode_steps
        done = terminated | truncated
        fresh_x, fresh_v = self._fresh()
        self._x = torch.where(done[:, None], fresh_x, self._x)
        self._v = torch.where(done[:, None], fresh_v, self._v)
        self._clock = torch.where(done, 0, self._clock)
        return StepResult(
            obs=self._observe(),
            reward=terms["near"] + terms["calm"],
            terminated=terminated,
            truncated=truncated,
            terminal_obs=terminal_obs,
            info={f"reward/{name}": term.detach() for name, term in terms.items()},
        )

    def detach(self) -> Obs:
        self._x, self._v = self._x.detach(), self._v.detach()
        return self._observe()

    def state_dict(self) -> dict:
        state = {"x": self._x.detach(), "v": self._v.detach(), "clock": self._clock}
        return {name: value.clone() for name, value in state.items()} | {
            "random": self._generator.get_state()
        }

    def load_state_dict(self, state: dict) -> None:
        self._x, self._v, self._clock = (state[name].clone() for name in ("x", "v", "clock"))
        self._generator.set_state(state["random"])

    def contract(self) -> PolicyContract:
        with_cloud = any(term.kind == "cloud" for term in self.obs_spec)
        return PolicyContract(
            policy_name="point_mass",
            task="point_mass",
            control_dt_s=DT_S,
            obs_terms=self.obs_spec,
            action=ActionSpec(
                joint_names=("slide",),
                mode="effort",
                scale=(5.0,),
                lower=(-2.0,),
                upper=(2.0,),
                max_velocity=(10.0,),
            ),
            default_joint_pos=(0.0,),
            point_cloud=PointCloudSpec(
                frame="world", crop_min=(-3.0, -3.0, -3.0), crop_max=(3.0, 3.0, 3.0), num_points=len(CLOUD)
            )
            if with_cloud
            else None,
        )

    def _fresh(self) -> tuple[Tensor, Tensor]:
        if self._start is not None:
            return self._start.to(self.dtype)[:, None].clone(), torch.zeros(
                self.num_envs, 1, dtype=self.dtype
            )
        x, v = 2.0 * torch.rand(2, self.num_envs, 1, generator=self._generator, dtype=self.dtype) - 1.0
        return x, v

    def _observe(self) -> Obs:
        obs = {"x": self._x, "v": self._v}
        if len(self.obs_spec) == 3:
            offset = torch.nn.functional.pad(self._x, (0, 2))
            obs["points"] = CLOUD.to(self.dtype) + offset[:, None, :]
        return obs
