"""What a trained policy earns, beside doing nothing and chance: fixed numbers of episodes, on starts of their own.

    python -m rewarped_sim.evaluate --run runs/cartpole_sapo_0 --episodes-per-env 2 --json evaluation.json

The policy is tried twice, with its mean action (what a robot runs) and with sampled ones (what papers report). Every
env counts the same number of episodes, so that short ones do not count more often, and all agents meet the same starts.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rewarped_sim.env import DeviceError, Env
from rewarped_sim.evaluation_progress import EvaluationProgress
from rewarped_sim.json_file import write_json
from rewarped_sim.output_path import require_writable
from rewarped_sim.registry import ConfigError, task_names
from rewarped_sim.train import BAD_INPUT, choose_device, show_log
from rewarped_sim.train_config import SETTINGS, TrainConfig, read_train_config
from rewarped_sim.trained_run import (
    EVALUATION_SEED_OFFSET,
    TrainedRun,
    held_out_env,
    load_run,
    read_run_config,
)
from rewarped_sim.watched_env import WatchedEnv
from sapo_learner.evaluate import EvalResult, Random, Zero, evaluate
from sapo_learner.policy import Policy
from sapo_learner.statistics import interquartile_mean, interquartile_mean_ci95, mean_ci95

log = logging.getLogger("rewarped_sim.evaluate")

DETERMINISTIC, STOCHASTIC, DO_NOTHING, RANDOM = "deterministic", "stochastic", "do_nothing", "random"
AGENTS = (DETERMINISTIC, STOCHASTIC, DO_NOTHING, RANDOM)
"""Who is tried: the policy's mean action, its samples, zeros, and uniform random numbers."""
BASELINES = {"zero": DO_NOTHING, "random": RANDOM}
"""What the command line calls the two that need no policy."""


def evaluate_agents(
    env: Env,
    policy: Policy | None,
    agents: Sequence[str],
    *,
    episodes_per_env: int,
    progress: EvaluationProgress,
) -> dict[str, EvalResult]:
    """Try each of `agents` on the same starts. policy: for those that need one."""
    players: dict[str, Any] = {
        DETERMINISTIC: policy,
        STOCHASTIC: policy,
        DO_NOTHING: Zero(env.action_dim),
        RANDOM: Random(env.action_dim, seed=env.seed),
    }
    results = {}
    for agent in agents:
        progress.begin(agent)
        results[agent] = evaluate(
            WatchedEnv(env, progress.on_step),
            players[agent],
            episodes_per_env=episodes_per_env,
            deterministic=agent != STOCHASTIC,
        )
        progress.end()
        log.info("%s: %s", agent, results[agent])
    return results


def summary(result: EvalResult) -> dict[str, Any]:
    """Return the figures of one agent as plain containers, every episode's return included."""
    returns = result.returns.flatten().tolist()
    return {
        "mean": result.mean,
        "ci95": result.ci95,
        "iqm": interquartile_mean(returns),
        "episodes": len(returns),
        "mean_length": float(result.lengths.double().mean()),
        "returns": [[round(value, 4) for value in row] for row in result.returns.tolist()],
    }


def settings(config: TrainConfig) -> dict[str, Any]:
    """Return what two runs of a task and algorithm may differ in besides their seed."""
    return {name: getattr(config, name) for name in SETTINGS if name not in ("task", "algo", "seed")}


def report(run: TrainedRun, results: Mapping[str, EvalResult]) -> dict[str, Any]:
    """Return what is known of one run as plain containers."""
    return {
        "run": str(run.folder),
        "task": run.config.task,
        "algo": run.config.algo,
        "seed": run.config.seed,
        "settings": settings(run.config),
        "checkpoint": run.checkpoint.name,
        "epoch": run.epoch,
        "policy_of_epoch": run.policy_of_epoch,
        "env_steps": run.env_steps,
        "num_envs": run.env.num_envs,
        "agents": {agent: summary(result) for agent, result in results.items()},
    }


def over_runs(reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return mean and interquartile mean over the means of runs that differ by their seed alone, with intervals."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for one in reports:
        groups.setdefault(repr([one[name] for name in ("task", "algo", "settings")]), []).append(one)
    rows = []
    for members in groups.values():
        row: dict[str, Any] = {name: members[0][name] for name in ("task", "algo")}
        row |= {"runs": len(members), "seeds": [member["seed"] for member in members], "agents": {}}
        for agent in members[0]["agents"]:
            means = [member["agents"][agent]["mean"] for member in members]
            mean, iqm = mean_ci95(means), interquartile_mean_ci95([means])
            row["agents"][agent] = {
                "mean": mean.estimate,
                "ci95": mean.half_width,
                "iqm": iqm.estimate,
                "iqm_low": iqm.low,
                "iqm_high": iqm.high,
            }
        rows.append(row)
    return rows


def _require_different_seeds(folders: Sequence[Path], configs: Sequence[TrainConfig]) -> None:
    """Raise ConfigError where two runs are the same one: an interval over them would say that chance played no part."""
    alike: dict[str, Path] = {}
    for folder, config in zip(folders, configs, strict=True):
        run = repr([getattr(config, name) for name in SETTINGS])
        if run in alike:
            raise ConfigError(
                f"--run {alike[run]} and {folder}: the same settings and seed {config.seed}; "
                "give each run once, and train others with --seed"
            )
        alike[run] = folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate from the command line; returns 0 done, 2 bad input, 3 device missing, 1 stopped or not written."""
    options = _parser().parse_args(arguments)
    show_log()
    try:
        if options.json:
            require_writable(options.json, "--json")
        content = _evaluate(options)
        if options.json:
            write_json(options.json, content)
            log.info("written: %s", options.json)
    except BAD_INPUT as error:
        return _complain(str(error), 2)
    except DeviceError as error:
        return _complain(str(error), 3)
    except OSError as error:
        return _complain(f"{error.filename or options.json or 'evaluate'}: {error.strerror or error}", 1)
    except KeyboardInterrupt:
        return _complain("stopped before the evaluation was done; nothing was written", 1)
    return 0


def _evaluate(options: argparse.Namespace) -> dict[str, Any]:
    for name in ("episodes_per_env", "num_envs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be > 0, got {value}")
    device = choose_device(options.device)
    if options.task:
        return _evaluate_baseline(options, device)
    if not options.run:
        raise ConfigError("nothing to evaluate: give --run FOLDER, or --task NAME with --agent zero|random")
    configs = [
        read_run_config(folder) for folder in options.run
    ]  # all are there, before the first one is tried
    agents = AGENTS if options.agent is None else (BASELINES[options.agent],)
    _require_different_seeds(options.run, configs)
    rounds = len(configs) * len(agents)
    progress = EvaluationProgress(rounds, episodes_per_env=options.episodes_per_env)
    reports = []
    for folder in options.run:
        run = load_run(folder, device=device, num_envs=options.num_envs)
        log.info("%s: %s, %s, epoch %d", folder, run.config.task, run.config.algo, run.policy_of_epoch)
        if run.epoch < run.config.epochs:
            log.warning("%s: not finished: epoch %d of %d", folder, run.epoch, run.config.epochs)
        results = evaluate_agents(
            run.env, run.policy, agents, episodes_per_env=options.episodes_per_env, progress=progress
        )
        reports.append(report(run, results))
    summaries = over_runs(reports)
    for row in summaries:
        if row["runs"] > 1:
            _log_summary(row)
    return {"episodes_per_env": options.episodes_per_env, "runs": reports, "over_runs": summaries}


def _evaluate_baseline(options: argparse.Namespace, device: str) -> dict[str, Any]:
    """Try what needs no policy, in a task as its own configuration has it."""
    if options.run or options.agent is None:
        raise ConfigError(
            "--task goes with --agent zero|random, and without --run, which has a task of its own"
        )
    config = read_train_config({"task": options.task, "num_envs": options.num_envs})
    env = held_out_env(config, seed_offset=EVALUATION_SEED_OFFSET, device=device)
    agent = BASELINES[options.agent]
    results = evaluate_agents(
        env,
        None,
        (agent,),
        episodes_per_env=options.episodes_per_env,
        progress=EvaluationProgress(1, episodes_per_env=options.episodes_per_env),
    )
    agents = {agent: summary(results[agent])}
    row = {"task": config.task, "seed": config.seed, "num_envs": env.num_envs, "agents": agents}
    return {"episodes_per_env": options.episodes_per_env, "tasks": [row]}


def _log_summary(row: Mapping[str, Any]) -> None:
    for agent, figures in row["agents"].items():
        log.info(
            "%s, %s over %d runs, %s: mean %.2f ± %.2f (95 %% confidence), interquartile mean %.2f [%.2f, %.2f]",
            row["task"],
            row["algo"],
            row["runs"],
            agent,
            *(figures[name] for name in ("mean", "ci95", "iqm", "iqm_low", "iqm_high")),
        )


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"error: {message}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rewarped_sim.evaluate",
        description="Evaluate trained policies, beside doing nothing and chance.",
    )
    add = parser.add_argument
    add("--run", type=Path, action="append", default=[], help="folder of a run; may be given several times")
    add("--episodes-per-env", type=int, default=2, help="episodes counted in every env (default: 2)")
    add("--num-envs", type=int, help="envs side by side (default: as many as the run trained in)")
    add("--agent", choices=sorted(BASELINES), help="try only this one, which needs no policy")
    add("--task", help=f"with --agent, a task instead of a run: one of {', '.join(task_names())}")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    add("--json", type=Path, help="file for all figures")
    return parser


if __name__ == "__main__":
    sys.exit(main())
