import pytest

from rewarped_sim.reproduction.record import Record


@pytest.fixture
def make_record():
    """A record of which a test says what matters to it."""

    def make(task="ant_run", algo="sapo", seed=0, *, earned=10.0, **values):
        agents = {
            "stochastic": {"mean": earned},
            "deterministic": {"mean": earned + 1.0},
            "do_nothing": {"mean": 2.0},
            "random": {"mean": 1.0},
        }
        defaults = {
            "suite": "cpu",
            "num_envs": 64,
            "epochs": 2000,
            "full_epochs": 2000,
            "env_steps": 4_096_000,
            "wall_clock_s": 600.0,
            "policy_of_epoch": 2000,
            "agents": agents,
            "curve": {"env_steps": [2048.0, 4096.0], "return": [1.0, earned]},
            "config": {},
            "machine": {},
        }
        return Record(task=task, algo=algo, seed=seed, **(defaults | values))

    return make
