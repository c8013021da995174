"""What test_parallel.py has ranks do, under torchrun: `rank_program.py <scenario> <folder>`, one file of each rank.

The same functions, called with `SINGLE`, are what they are compared with.
"""

import os
import signal
import sys
import time
from pathlib import Path

import torch
from point_mass import PointMass

from sapo_learner.algorithms import ALGORITHMS, PRESETS, split_name
from sapo_learner.learner import Interrupted
from sapo_learner.parallel import RankLostError, Ranks, joined
from sapo_learner.vec_env import StepResult

NUM_ENVS = 6
SETTINGS = {
    "horizon": 8,
    "actor_hidden": (16,),
    "critic_hidden": (16,),
    "critic_passes": 2,
    "num_minibatches": 3,
}
VARIATIONS = {
    "sapo": ("sapo", {}),
    "sapo, in the order of time": ("sapo", {"shuffle_minibatches": False}),
    # of so few samples in a minibatch, a rank has none now and then
    "sapo, tiny minibatches": ("sapo", {"num_minibatches": 24}),
    "sapo, slow critics": ("sapo", {"target_keep": 0.9, "entropy_samples": 2}),
    **{name: split_name(name) for name in PRESETS},
    "shac": ("shac", {}),
    "shac, means met": ("shac", {"meet_mean": True}),
    "apg": ("apg", {}),
    "trajopt": ("trajopt", {}),
    "ppo": ("ppo", {}),
}


class Share(PointMass):
    """A rank's envs of a point mass in `NUM_ENVS` envs, each of which starts where it would without ranks."""

    broken = False

    def __init__(self, ranks: Ranks, **options) -> None:
        self._ranks = ranks
        super().__init__(num_envs=NUM_ENVS // ranks.size, max_episode_steps=5, **options)

    def _fresh(self):
        x, v = 2.0 * torch.rand(2, NUM_ENVS, 1, generator=self._generator, dtype=self.dtype) - 1.0
        return self._ranks.own(x, 0), self._ranks.own(v, 0)

    def step(self, action):
        result = super().step(action)
        if self.broken:
            result = StepResult(**{**result.__dict__, "reward": result.reward * float("nan")})
        return result


def make(ranks: Ranks, name: str = "sapo", *, with_cloud: bool = False, seed: int = 0):
    algo, settings = VARIATIONS[name]
    algorithm = ALGORITHMS[algo]
    known = algorithm.config.__dataclass_fields__
    chosen = {key: value for key, value in SETTINGS.items() if key in known} | settings
    env = Share(ranks, dtype=torch.get_default_dtype(), with_cloud=with_cloud)
    return algorithm.learner(env, algorithm.config(**chosen), seed=seed, planned_epochs=20, ranks=ranks)


def train(ranks: Ranks) -> dict:
    """Reports and networks of five epochs of each variation, in float64, where rounding does not grow to anything."""
    torch.set_default_dtype(torch.float64)
    results = {}
    for name in VARIATIONS:
        learner = make(ranks, name, with_cloud=name == "shac")
        reports = [learner.update() for _ in range(5)]
        parts = {key: part.state_dict() for key, part in learner._parts().items()}
        results[name] = {"reports": reports, "parts": parts, "samples": learner._generator.get_state()}
    torch.set_default_dtype(torch.float32)
    return results


def share(ranks: Ranks) -> dict:
    """Numbers that tell step and env apart, shared and put together again."""
    numbers = torch.arange(4 * NUM_ENVS).view(4, NUM_ENVS)
    samples = torch.randperm(numbers.numel(), generator=torch.Generator().manual_seed(1))
    own = ranks.own(numbers, dim=1)
    means = [torch.full((2, 3), float(ranks.rank)), torch.tensor(10.0 * ranks.rank)]
    ranks.average_(means)
    return {
        "own": own,
        "gathered": ranks.gather(own, dim=1),
        "gathered_flags": ranks.gather(own % 3 == 0, dim=1),
        "own_samples": own.flatten()[ranks.own_samples(samples, own.shape[1])],
        "means": means,
        "any": [ranks.any(False), ranks.any(ranks.rank == 1), ranks.any(True)],
        "on_first": ranks.on_first(lambda: f"said by rank {ranks.rank}"),
        "part_of_mean": ranks.part_of_mean(own.double(), numbers.numel()),
    }


def break_one(ranks: Ranks) -> dict:
    """Break the gradient on one rank only, of all parameters and of the actions."""
    results = {}
    for name in ("sapo", "sapo/reuse"):
        learner = make(ranks, name)
        learner.env.broken = ranks.rank == 1
        before = learner.state_dict()["policy"]
        report = learner.update()
        results[name] = {"before": before, "after": learner.state_dict()["policy"], "report": report}
    return results


def interrupt_one(ranks: Ranks) -> dict:
    """Tell one rank only to stop, in the middle of a window; then go on."""
    learner = make(ranks)
    learner.update()
    before = learner.state_dict()
    answers = iter([False] * 3 + [ranks.rank == 1])
    try:
        learner.update(should_stop=lambda: next(answers))
    except Interrupted as error:
        stopped = str(error)
    after = learner.state_dict()
    return {"before": before, "after": after, "stopped": stopped, "report": learner.update()}


def resume(ranks: Ranks) -> dict:
    """Save after two epochs, train on; start anew from what rank 0 saved."""
    results = {}
    for name in ("sapo", "trajopt"):
        first = make(ranks, name)
        for _ in range(2):
            first.update()
        state = first.state_dict()
        saved = ranks.on_first(lambda state=state: state)
        reports = [first.update() for _ in range(2)]
        second = make(ranks, name, seed=5)
        second.load_state_dict(saved)
        results[name] = {
            "saved": saved,
            "expected": (reports, first.state_dict()),
            "found": ([second.update() for _ in range(2)], second.state_dict()),
        }
    return results


def fail_on_first(ranks: Ranks) -> dict:
    """Fail on rank 0 in what only it does."""
    try:
        ranks.on_first(lambda: int("not a number"))
    except ValueError as error:
        return {"error": str(error)}
    return {}


SCENARIOS = {
    function.__name__: function
    for function in (train, share, break_one, interrupt_one, resume, fail_on_first)
}


def everything(ranks: Ranks) -> dict:
    return {name: scenario(ranks) for name, scenario in SCENARIOS.items()}


def die(ranks: Ranks) -> dict:
    """Train on until rank 1 is killed, and tell what the others see of it."""
    signal.signal(signal.SIGTERM, lambda *_: None)  # as a run does: it stops when it has noticed
    learner = make(ranks)
    learner.update()
    before = learner.state_dict()
    steps = iter(range(100))

    def kill_or_wait() -> bool:
        if next(steps) == 4 and ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    started = time.monotonic()
    try:
        learner.update(should_stop=kill_or_wait)
    except RankLostError as error:
        return {
            "error": str(error),
            "took_s": time.monotonic() - started,
            "before": before["policy"],
            "after": learner.policy.state_dict(),
        }
    return {}


def main() -> None:
    scenario, folder = sys.argv[1:]
    torch.set_num_threads(1)
    with joined() as ranks:
        result = (die if scenario == "die" else everything)(ranks)
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    result["threads left"] = [name for name in names if "gloo" in name]
    torch.save(result, Path(folder) / f"rank_{ranks.rank}.pt")


if __name__ == "__main__":
    main()
