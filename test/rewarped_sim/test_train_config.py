from pathlib import Path

import pytest
import yaml

from rewarped_sim.registry import ConfigError, UnknownTaskError, configure, find
from rewarped_sim.run_folder import CONFIG_FILE, open_run_folder
from rewarped_sim.train_config import TrainConfig, read_train_config
from sapo_learner.sapo import SapoConfig

CONFIGS = Path(__file__).parents[2] / "config" / "train"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": "roling_flat"}, "unknown task 'roling_flat'; did you mean 'rolling_flat'"),
        ({"algo": "sapp"}, "unknown algo 'sapp'; did you mean 'sapo'"),
        ({"num_env": 3}, "unknown setting 'num_env'; did you mean 'num_envs'"),
        ({"epochs": "many"}, "epochs: expected int, got 'many'"),
        ({"num_envs": -3}, "num_envs must be > 0, got -3"),
        ({"seed": -1}, "seed must be between 0"),
        ({"device": "gpu"}, "device: expected auto, cpu, cuda or cuda:N, got 'gpu'"),
        ({"eval_episodes": 0}, "eval_episodes must be > 0, got 0"),
    ],
)
def test_bad_values_are_refused_by_name(values, message):
    with pytest.raises((ConfigError, UnknownTaskError), match=message.replace("'", ".")):
        read_train_config(values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("run: [", "is not valid YAML"),
        ("just text", "expected sections"),
        ({"saop": {}}, "unknown section 'saop'; did you mean 'sapo'"),
        ({"run": 3}, "run must hold keys and values, got 3"),
        ({"run": {"epoch": 3}}, "unknown setting 'epoch'; did you mean 'epochs'"),
        ({"run": {"task": 5}}, r"run.task: expected str, got 5 \(int\)"),
        ({"run": {"algo": ["sapo"]}}, r"run.algo: expected str, got \['sapo'\] \(list\)"),
        ("run: {on: 1}", "run: unknown setting 'True'"),
        ({"task": {3: 1}}, "task: unknown setting '3'"),
        ({"sapo": {1: 2}}, "sapo: unknown setting '1'"),
        ("sapo: {gamma: 1e-1}", "sapo.gamma: expected float, got '1e-1' .str.; YAML takes 1e-3 for text"),
    ],
)
def test_bad_files_are_refused_with_their_place(tmp_path, content, message):
    path = write(tmp_path / "my.yaml", content)
    with pytest.raises(ConfigError, match=message):
        config = read_train_config({}, config_path=path)
        configure(find(config.task).config, dict(config.task_options), "task")
        configure(SapoConfig(), dict(config.algo_options), "sapo")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml cannot be read: No such file"):
        read_train_config({}, config_path=str(tmp_path / "nowhere.yaml"))


def test_later_layers_win_and_zero_means_not_given(tmp_path):
    path = write(
        tmp_path / "my.yaml",
        {"run": {"epochs": 7, "num_envs": 3}, "task": {"young": 9.0}, "sapo": {"gamma": 0.9}},
    )
    config = read_train_config({"epochs": 0, "num_envs": 5, "task": ""}, config_path=path)
    assert (config.epochs, config.num_envs) == (7, 5)
    assert config.task_options == {"young": 9.0}
    assert config.algo_options["gamma"] == 0.9


def test_a_variations_own_section_goes_over_the_variation_and_that_over_the_algorithms(tmp_path):
    def options(algo, user):
        path = write(tmp_path / "my.yaml", user)
        return read_train_config({"task": "hopper", "algo": algo}, config_path=path).algo_options

    assert "target_keep" not in options("sapo", {})
    of_task = options("sapo/target_critic", {})
    assert (of_task["num_critics"], of_task["target_keep"]) == (1, 0.2)  # hopper.yaml has what SHAC has there
    assert options("sapo/target_critic", {"sapo": {"target_keep": 0.5}})["target_keep"] == 0.5
    both = {"sapo": {"target_keep": 0.5, "gamma": 0.9}, "sapo/target_critic": {"target_keep": 0.7}}
    assert [options("sapo/target_critic", both)[name] for name in ("target_keep", "gamma")] == [0.7, 0.9]
    assert options("sapo", both)["target_keep"] == 0.5


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_where_shac_has_a_quick_target_so_has_its_critic_in_sapo(path):
    shac, sapo = (
        read_train_config({"task": path.stem, "algo": algo}).algo_options
        for algo in ("shac", "sapo/target_critic")
    )
    assert sapo["target_keep"] == shac.get("target_keep", 0.995)


def test_the_task_brings_its_own_number_of_envs():
    small, full = (read_train_config({"task": task}) for task in ("rolling_flat_small", "rolling_flat"))
    assert small.num_envs > 0 and full.num_envs > 0
    assert read_train_config({}).task == "rolling_flat_small"


def test_a_written_configuration_reads_back_as_itself(tmp_path):
    config = TrainConfig(
        task="rolling_flat", seed=4, epochs=9, task_options={"young": 9.0}, algo_options={"gamma": 0.5}
    )
    path = write(tmp_path / "saved.yaml", config.to_yaml())
    assert read_train_config({}, config_path=path) == config


def test_fresh_runs_get_numbered_folders():
    config = read_train_config({"seed": 3})
    names = []
    for _ in range(3):
        folder = open_run_folder(config)
        folder.config.write_text(config.to_yaml())
        names.append(folder.path.name)
    assert names == [
        "rolling_flat_small_sapo_3",
        "rolling_flat_small_sapo_3_2",
        "rolling_flat_small_sapo_3_3",
    ]
    assert folder.path.parent.name == "runs"


def test_a_chosen_folder_with_a_run_in_it_is_not_taken(tmp_path):
    write(tmp_path / "mine" / CONFIG_FILE, "")
    with pytest.raises(ConfigError, match="mine holds an earlier run; continue it with resume"):
        open_run_folder(read_train_config({"out_dir": "mine"}))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    write(tmp_path / "file", "not a folder")
    with pytest.raises(ConfigError, match=r"out_dir .*file.run cannot be written"):
        open_run_folder(read_train_config({"out_dir": str(tmp_path / "file" / "run")}))
    with pytest.raises(ConfigError, match=r"out_dir .*x cannot be written: File name too long"):
        open_run_folder(read_train_config({"out_dir": "x" * 300}))
    with pytest.raises(ConfigError, match="there is no such user's home folder"):
        open_run_folder(read_train_config({"out_dir": "~no_such_user/run"}))


@pytest.mark.parametrize("word", ["true", "latest", "True"])
def test_resume_finds_the_newest_run_and_takes_over_its_settings(tmp_path, word):
    for name in ("rolling_flat_small_sapo_0", "rolling_flat_small_sapo_0_2"):
        folder = tmp_path / "runs" / name
        write(folder / CONFIG_FILE, {"run": {"num_envs": 6, "epochs": 50}, "sapo": {"gamma": 0.7}})
    (tmp_path / "runs" / "rolling_flat_small_sapo_0_old").mkdir()
    config = read_train_config({"epochs": 80}, resume=word)
    assert config.resume
    assert config.out_dir == str(folder)
    assert (config.num_envs, config.epochs, config.algo_options["gamma"]) == (6, 80, 0.7)
    assert open_run_folder(config).path == folder


@pytest.mark.parametrize("word", ["", "false", "False"])
def test_without_resume_a_run_starts_afresh(word):
    assert not read_train_config({}, resume=word).resume


@pytest.mark.parametrize(
    ("resume", "out_dir", "message"),
    [
        ("true", "", "no earlier run under"),
        ("true", "elsewhere", "elsewhere is not the folder of a run"),
        ("elsewhere", "", "elsewhere is not the folder of a run"),
        ("~no_such_user/run", "", "~no_such_user/run: there is no such user's home folder"),
        ("true", "~no_such_user/run", "~no_such_user/run: there is no such user's home folder"),
        ("x" * 300, "", "resume: .*x cannot be read: File name too long"),
        (
            "a_file",
            "",
            "a_file is a file, but no checkpoint in the folder of its run; expected true, latest, a ",
        ),
    ],
)
def test_resuming_what_is_not_there_is_refused(tmp_path, resume, out_dir, message):
    write(tmp_path / "a_file", "")
    with pytest.raises(ConfigError, match=message):
        read_train_config({"out_dir": out_dir}, resume=resume)


def test_a_checkpoint_names_its_run_and_itself(tmp_path):
    write(tmp_path / "mine" / CONFIG_FILE, {"run": {"epochs": 50}})
    checkpoint = tmp_path / "mine" / "checkpoints" / "checkpoint_000020.pt"
    write(checkpoint, "")
    config = read_train_config({}, resume=str(checkpoint))
    assert (config.out_dir, config.resume_from, config.epochs) == (
        str(tmp_path / "mine"),
        str(checkpoint),
        50,
    )
    assert read_train_config({}, resume=str(tmp_path / "mine")).resume_from == ""
    assert "resume" not in config.to_yaml()


def test_a_run_killed_before_it_wrote_its_settings_is_begun_with_those_given(tmp_path):
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine" / ".lock", "process 1 on somewhere")
    write(tmp_path / "mine" / ".writing_config.yaml", "run: {epo")
    config = read_train_config({"out_dir": "mine", "epochs": 7}, resume="true")
    with open_run_folder(config) as folder:
        assert yaml.safe_load(folder.config.read_text())["run"]["epochs"] == 7
    write(tmp_path / "notes" / "notes.txt", "somebody's notes are not a run")
    with pytest.raises(ConfigError, match=f"notes is not the folder of a run .no {CONFIG_FILE} in it"):
        read_train_config({"out_dir": "notes"}, resume="true")


@pytest.mark.parametrize("task", ["rolling_flat_small", "spring_press", "humanoid"])
def test_a_run_takes_its_own_tasks_number_of_envs_unless_told_otherwise(task, tmp_path):
    path = write(tmp_path / "my.yaml", {"run": {"num_envs": 0}})
    preset = yaml.safe_load((CONFIGS / f"{task}.yaml").read_text()).get("run", {})
    expected = preset.get("num_envs", find(task).num_envs)
    assert read_train_config({"task": task}).num_envs == expected
    assert read_train_config({"task": task, "num_envs": 7}, config_path=path).num_envs == 7


def test_hidden_layers_may_be_any_number_but_betas_are_two():
    config = configure(SapoConfig(), {"actor_hidden": [128, 64, 32], "critic_hidden": [64]}, "sapo")
    assert config.actor_hidden == (128, 64, 32)
    assert config.critic_hidden == (64,)
    with pytest.raises(ConfigError, match=r"sapo\.betas: expected 2 values, got 3"):
        configure(SapoConfig(), {"betas": [0.5, 0.6, 0.7]}, "sapo")
    with pytest.raises(ConfigError, match=r"sapo\.actor_hidden\[1\]: expected int, got 'wide'"):
        configure(SapoConfig(), {"actor_hidden": [16, "wide"]}, "sapo")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_file_of_differences_fits_its_task(path):
    config = read_train_config({"task": path.stem})
    configure(SapoConfig(), dict(config.algo_options), config.algo)
    configure(find(config.task).config, dict(config.task_options), config.task)
