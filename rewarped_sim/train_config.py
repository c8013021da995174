"""What a training run is told: command line, launch arguments and YAML files end here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rewarped_sim.registry import ConfigError, configure, find, unknown
from rewarped_sim.run_folder import CONFIG_FILE, find_run
from rewarped_sim.share import find_share_file
from sapo_learner.algorithms import NAMES, split_name

DEFAULT_TASK = "rolling_flat_small"


SETTINGS = ("task", "algo", "num_envs", "seed", "epochs", "select_every", "task_options", "algo_options")
"""Fields of a `TrainConfig` that decide what its run learns; two runs that agree in all of them are the same one."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run. Section `run` of a YAML file holds the same names."""

    task: str = DEFAULT_TASK
    """Registered name of the task."""
    algo: str = "sapo"
    """Learning algorithm, or a variation of one: see `sapo_learner.algorithms`."""
    num_envs: int = 0
    """Environments simulated side by side; 0 means the task's own number for a CPU."""
    seed: int = 0
    """Of every random number generator; a resumed run goes on with the state that it saved."""
    device: str = "auto"
    """cpu, cuda, cuda:N, or auto: cuda where there is one, else cpu."""
    epochs: int = 100
    """Epoch at which to end, those before a resume included; one is a gradient window and its updates."""
    out_dir: str = ""
    """Folder for everything that the run writes; empty means a new one, runs/<task>_<algo>_<seed>."""
    resume: bool = False
    """Continue the run in out_dir."""
    resume_from: str = ""
    """Checkpoint to continue from; newer ones are set aside. Empty: the newest whole one."""
    checkpoint_every: int = 10
    """Epochs between checkpoints."""
    select_every: int = 0
    """Epochs between trials of the policy on held-out starts, the best of which is the one that the run ends with; 0
    takes the last policy, as the published runs do."""
    eval_episodes: int = 16
    """Episodes of the comparison with do-nothing at the end, in whole rounds of all envs: at most these, or one."""
    video: bool = True
    """Record and draw a rollout at the end."""
    task_options: Mapping[str, Any] = field(default_factory=dict)
    """Differences from the task's own configuration (section `task`)."""
    algo_options: Mapping[str, Any] = field(default_factory=dict)
    """Differences from the algorithm's own configuration (section named after it)."""

    def __post_init__(self) -> None:
        entry = find(self.task)
        if self.algo not in NAMES:
            raise ConfigError(unknown("algo", self.algo, list(NAMES)))
        if self.num_envs == 0:
            object.__setattr__(self, "num_envs", entry.num_envs)
        for name in ("num_envs", "epochs", "checkpoint_every", "eval_episodes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be > 0, got {getattr(self, name)}")
        if self.select_every < 0:
            raise ConfigError(f"select_every must be >= 0, got {self.select_every}")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed must be between 0 and 2^63 - 1, got {self.seed}")
        kind, _, index = self.device.partition(":")
        if not (self.device in ("auto", "cpu", "cuda") or (kind == "cuda" and index.isdigit())):
            raise ConfigError(f"device: expected auto, cpu, cuda or cuda:N, got {self.device!r}")

    def to_yaml(self) -> str:
        """Write the run as a file of differences that `read_train_config` takes back."""
        run = asdict(self)
        sections = {
            "run": run,
            "task": dict(run.pop("task_options")),
            split_name(self.algo)[0]: dict(run.pop("algo_options")),
        }
        for name in (
            "out_dir",
            "resume",
            "resume_from",
        ):  # where this run went says nothing about the next one
            del run[name]
        return yaml.safe_dump(sections, sort_keys=False)


def read_train_config(values: Mapping[str, Any], *, config_path: str = "", resume: str = "") -> TrainConfig:
    """Combine, later over earlier: defaults, config/train/<task>.yaml, variation of `algo`, user's file, values.

    values: fields of TrainConfig by name; empty text and 0 for num_envs and epochs mean "not given".
    resume: empty or false starts afresh; true or latest continues the run in out_dir, or where none is given
    the newest run of this task, algorithm and seed; anything else is the folder of the run to continue, or one of its
    checkpoints. The settings of that run, which hold the task's, then take their place.
    Raises UnknownTaskError or ConfigError, whose message names file and key.
    """
    given = {key: value for key, value in values.items() if not _is_unset(key, value)}
    user = _read_sections(Path(config_path)) if config_path else {}
    task = given.get("task") or _name(user.get("run", {}), "task") or DEFAULT_TASK
    find(task)  # before a file is looked for under its name
    preset_path = find_share_file(f"config/train/{task}.yaml")
    layers = [_read_sections(preset_path) if preset_path else {}]
    layers += [user, {"run": given}]
    run = _merge(layers, "run")
    if resume.lower() not in ("", "false"):
        folder, checkpoint = find_run(configure(TrainConfig(), run, "run"), resume)
        if (folder / CONFIG_FILE).is_file():  # else it was killed in its first moments
            layers[:-2] = [{}, _read_sections(folder / CONFIG_FILE)]  # in which the task's own file went in
        run = _merge(layers, "run")
        run |= {"out_dir": str(folder), "resume": True, "resume_from": str(checkpoint or "")}
    run.setdefault("num_envs", find(_name(run, "task") or DEFAULT_TASK).num_envs)
    run["task_options"] = _merge(layers, "task")
    run["algo_options"] = _algo_options(layers, _name(run, "algo") or TrainConfig.algo)
    return configure(TrainConfig(), run, "run")


def _name(run: Mapping[str, Any], key: str) -> str:
    """What a section `run` names, empty where it does not; looked up before all other values are checked."""
    name = run.get(key) or ""
    if not isinstance(name, str):
        raise ConfigError(f"run.{key}: expected str, got {name!r} ({type(name).__name__})")
    return name


def _merge(layers: list[dict[str, dict[str, Any]]], section: str) -> dict[str, Any]:
    return {key: value for layer in layers for key, value in layer.get(section, {}).items()}


def _algo_options(layers: list[dict[str, dict[str, Any]]], algo: str) -> dict[str, Any]:
    """Combine what the layers say of an algorithm and, over it, of the variation; the first one is of the task."""
    family, variation = split_name(algo)
    of_task, *rest = layers
    options = {**of_task.get(family, {}), **variation, **of_task.get(algo, {})}
    for layer in rest:
        options |= {**layer.get(family, {}), **layer.get(algo, {})}
    return options


def _read_sections(path: Path) -> dict[str, dict[str, Any]]:
    """Read a YAML file of differences: `run`, `task` and one section per algorithm or variation, of keys and values."""
    known = ["run", "task", *NAMES]
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config {path} cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content or {}, dict):
        raise ConfigError(f"config {path}: expected sections {known}, got {type(content).__name__}")
    for section, values in (content or {}).items():
        if section not in known:
            raise ConfigError(f"config {path}: {unknown('section', str(section), known)}")
        if not isinstance(values or {}, dict):
            raise ConfigError(f"config {path}: {section} must hold keys and values, got {values!r}")
    return {section: dict(values or {}) for section, values in (content or {}).items()}


def _is_unset(key: str, value: Any) -> bool:
    return value in ("", None) or (key in ("num_envs", "epochs") and value == 0)
