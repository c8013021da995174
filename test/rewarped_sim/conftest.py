import pytest
import yaml

TINY = {
    "run": {"num_envs": 2, "epochs": 4, "checkpoint_every": 2, "eval_episodes": 2, "video": False},
    "task": {"num_particles": 250, "grid_size": 24, "num_substeps": 8, "max_episode_steps": 12},
    "sapo": {"horizon": 5, "actor_hidden": [16, 16], "critic_hidden": [16, 16], "critic_passes": 2},
}
"""A training run of seconds: everything is real, but nothing is learned."""


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return str(path)
