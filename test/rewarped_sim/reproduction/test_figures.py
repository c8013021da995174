import imageio.v2 as imageio
import numpy as np
import pytest
from matplotlib import colormaps

from rewarped_sim.reproduction.figures import COLORS, curves_on_one_grid, draw_figures


def test_curves_are_compared_where_all_runs_have_one(make_record):
    records = [
        make_record(seed=0, curve={"env_steps": [0.0, 2e6, 4e6], "return": [0.0, 20.0, 40.0]}),
        make_record(seed=1, curve={"env_steps": [1e6, 3e6], "return": [5.0, 7.0]}),
        make_record(seed=2, curve={"env_steps": [], "return": []}),
    ]
    steps, returns = curves_on_one_grid(records)
    assert (steps[0], steps[-1]) == (1.0, 3.0)
    np.testing.assert_allclose(returns, [10.0 * steps, 4.0 + steps])


def test_wall_clock_time_is_even_over_a_run(make_record):
    curve = {"env_steps": [1e6, 2e6], "return": [0.0, 1.0]}
    minutes, _ = curves_on_one_grid(
        [make_record(curve=curve, env_steps=4_000_000, wall_clock_s=1200.0)], "minutes"
    )
    assert (minutes[0], minutes[-1]) == pytest.approx((5.0, 10.0))


def test_runs_without_a_finished_episode_have_no_curve(make_record):
    steps, returns = curves_on_one_grid([make_record(curve={"env_steps": [], "return": []})])
    assert len(steps) == 0 and len(returns) == 0


def colors_of(path):
    return {tuple(color) for color in np.asarray(imageio.imread(path))[..., :3].reshape(-1, 3)}


def test_every_algorithm_is_drawn_in_its_color(make_record, tmp_path):
    records = [
        make_record(task, algo, seed, earned=earned)
        for task in ("ant_run", "cartpole")
        for algo, earned in (("sapo", 9.0), ("shac", 6.0))
        for seed in (0, 1)
    ]
    ((path, caption),) = draw_figures(tmp_path / "results", "cpu", records).items()
    drawn = colors_of(path)
    for algo, color in COLORS.items():
        rgb = tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))
        assert (rgb in drawn) == (algo in ("sapo", "shac"))
    assert "95 % confidence" in caption


def test_a_sweep_of_two_settings_is_drawn_as_a_grid_and_one_of_envs_over_time_too(make_record, tmp_path):
    grid = [
        make_record(
            "cartpole",
            variation=f"temperature={a:g},target={b:g}",
            earned=earned,
            config={"algo_options": {"initial_temperature": a, "target_entropy_per_dim": b}},
        )
        for (a, b), earned in {(0.01, -0.5): 1.0, (0.1, -0.5): 2.0, (0.01, -1.0): 3.0}.items()
    ]
    assert [path.name for path in draw_figures(tmp_path, "entropy", grid)] == ["entropy_grid.png"]
    assert {tuple(colormaps["viridis"](end, bytes=True)[:3]) for end in (0.0, 1.0)} <= colors_of(
        tmp_path / "entropy_grid.png"
    )
    envs = [make_record("cartpole", variation=f"envs={count}") for count in (16, 256)]
    names = [path.name for path in draw_figures(tmp_path, "envs", envs)]
    assert names == ["envs_curves.png", "envs_minutes.png"]
    assert colors_of(tmp_path / names[0]) and colors_of(tmp_path / names[1])
