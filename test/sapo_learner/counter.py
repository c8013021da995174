"""An env of two counters whose values are known exactly, so that every off-by-one in a bootstrap shows."""

import torch
from torch import Tensor

from policy_runner.contract import ObsTerm
from sapo_learner.vec_env import StepResult


class Counter:
    """Observes how many steps it has run; rewards make the value of a step count `k` exactly `k + 10`."""

    num_envs, action_dim, max_episode_steps, device = 2, 1, 5, torch.device("cpu")
    obs_spec = (ObsTerm(name="count", kind="joint_position", shape=(1,)),)
    FAILS_AT = 3  # env 1, so that env 0 reaches its time limit and env 1 never does

    def __init__(self, gamma: float):
        self.gamma = gamma
        self.reset()

    def reset(self):
        self.count = torch.zeros(2)
        return self.detach()

    def detach(self):
        return {"count": self.count[:, None]}

    def step(self, action: Tensor) -> StepResult:
        before, after = self.count, self.count + 1
        terminated = torch.tensor([False, True]) & (after >= self.FAILS_AT)
        truncated = after >= self.max_episode_steps
        next_value = torch.where(terminated, 0.0, after + 10.0)
        reward = before + 10.0 - self.gamma * next_value + 0.0 * action.squeeze(1)
        self.count = torch.where(terminated | truncated, 0.0, after)
        return StepResult(
            obs={"count": self.count[:, None]},
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            terminal_obs={"count": after[:, None]},
            info={},
        )

    def state_dict(self):
        return {"count": self.count.clone()}

    def load_state_dict(self, state):
        self.count = state["count"].clone()
