import json

import imageio.v2 as imageio
import numpy as np
import pytest
import yaml

from rewarped_sim.loss_surface import main
from rewarped_sim.train import train
from rewarped_sim.train_config import read_train_config

TINY = {
    "run": {"num_envs": 2, "epochs": 1, "eval_episodes": 2, "video": False, "device": "cpu"},
    "task": {"max_episode_steps": 12},
    **{
        algo: {"horizon": 4, "actor_hidden": [8], "critic_hidden": [8], "critic_passes": 1}
        for algo in ("sapo", "shac")
    },
    "ppo": {"horizon": 4, "actor_hidden": [8], "critic_hidden": [8]},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Cart-pole runs of one epoch by algorithm."""
    folder = tmp_path_factory.mktemp("surfaces")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    paths = {algo: folder / algo for algo in ("sapo", "shac", "ppo")}
    for algo, path in paths.items():
        values = {"task": "cartpole", "algo": algo, "out_dir": str(path)}
        train(read_train_config(values, config_path=str(folder / "tiny.yaml")))
    return paths


def test_two_runs_are_drawn_side_by_side_with_their_figures_beside_them(runs, tmp_path):
    out = tmp_path / "pictures" / "surface.png"
    words = ["--run", str(runs["sapo"]), "--run", str(runs["shac"]), "--size", "3", "--span", "0.5"]
    assert main([*words, "--device", "cpu", "--out", str(out)]) == 0
    content = np.load(out.with_suffix(".npz"))
    np.testing.assert_allclose(content["coordinates"], [-0.5, 0.0, 0.5])
    assert content["loss"].shape == (2, 3, 3) and np.isfinite(content["loss"]).all()
    assert np.ptp(content["loss"], axis=(1, 2)).min() > 0.0
    settings = json.loads(out.with_suffix(".json").read_text())
    assert [row["title"] for row in settings["runs"]] == [
        "cartpole, sapo, seed 0, epoch 1",
        "cartpole, shac, seed 0, epoch 1",
    ]
    height, width = imageio.imread(out).shape[:2]
    assert width > 2 * height


def test_the_same_seed_gives_the_same_surface_and_the_middle_does_not_depend_on_it(runs, tmp_path):
    losses = []
    for number, seed in enumerate((0, 0, 1)):
        out = tmp_path / f"{number}.png"
        words = ["--run", str(runs["sapo"]), "--size", "3", "--seed", str(seed), "--out", str(out)]
        assert main([*words, "--device", "cpu"]) == 0
        losses.append(np.load(out.with_suffix(".npz"))["loss"][0])
    np.testing.assert_array_equal(losses[0], losses[1])
    assert losses[2][1, 1] == losses[0][1, 1] and losses[2][0, 0] != losses[0][0, 0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--run", "{ppo}"], "ppo has no objective of a window; those that have: ['sapo', 'shac', 'apg']"),
        (["--run", "{tmp}"], "is not the folder of a run"),
        (["--run", "{sapo}", "--size", "1"], "--size must be > 1, got 1"),
        (["--run", "{sapo}", "--span", "0"], "--span must be > 0 and finite, got 0"),
        (["--run", "{sapo}", "--span", "inf"], "--span must be > 0 and finite, got inf"),
        (["--run", "{sapo}", "--num-envs", "0"], "--num-envs must be > 0, got 0"),
        (["--run", "{sapo}", "--out", "x.pdf"], "--out must end in .png, got x.pdf"),
        (["--run", "{tmp}", "--out", "/proc/x/y.png"], "--out /proc/x/y.png cannot be written: "),
    ],
)
def test_what_cannot_be_drawn_is_refused(runs, tmp_path, capsys, words, message):
    words = [word.format(tmp=tmp_path, **runs) for word in words]
    assert main(["--out", str(tmp_path / "x.png"), "--device", "cpu", *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()
