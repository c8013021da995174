"""Tables of what came out, as the papers have them: algorithms by tasks, published figures below ours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rewarped_sim.registry import find
from rewarped_sim.reproduction import published
from rewarped_sim.reproduction.record import Record
from rewarped_sim.reproduction.suites import BASELINES, SUITES, TRAJOPT_PASSES
from sapo_learner.algorithms import ABLATIONS, NAMES
from sapo_learner.statistics import Interval, interquartile_mean_ci95, mean_ci95

LEAST_SEEDS = 3
"""With an interval: of two, Student's t makes 12.7 standard errors, which says nothing."""


def describe(records: Sequence[Record]) -> str:
    """Return all that is to be said of a suite's records, in Markdown. No record gives a line that says so."""
    if not records:
        return "No run of this suite is done yet."
    parts = [
        "Returns with **sampled actions**, as in the published tables; mean over seeds ± half the 95 % confidence "
        "interval (Student's t over the seeds' means), the highest mean of ours in bold:",
        _returns_table(records, "stochastic", with_published=True),
        "Returns with the **mean action**, which is what a robot runs:",
        _returns_table(records, "deterministic", with_published=False),
        _aggregate(records),
        "What the runs took:",
        _cost_table(records),
        _remark_on_budgets(records),
    ]
    return "\n\n".join(part for part in parts if part)


def labels_of(records: Iterable[Record]) -> list[str]:
    """List the algorithms of some records in the order of the published tables, or the points of a sweep in its own."""
    algorithms = list(dict.fromkeys((*BASELINES[:-1], *ABLATIONS, "sapo", *NAMES)))
    points = list(dict.fromkeys(name for suite in SUITES.values() for name in suite.variations))
    places = {r.label: (algorithms.index(r.algo), points.index(r.variation)) for r in records}
    return sorted(places, key=lambda label: places[label])


def tasks_of(records: Iterable[Record]) -> list[str]:
    """List the tasks of some records: published ones first, in the papers' order."""
    order = list(published.RETURNS)
    order += sorted({record.task for record in records} - set(order))
    return sorted({record.task for record in records}, key=order.index)


def seed_means(records: Iterable[Record], task: str, label: str, agent: str) -> list[float]:
    """List the mean returns of a task's runs of this label, one a seed."""
    return [
        record.agents[agent]["mean"] for record in records if (record.task, record.label) == (task, label)
    ]


def scored_tasks(records: Sequence[Record], agent: str) -> tuple[list[str], list[str]]:
    """List the tasks on which every published algorithm has a run: those where scores exist, and those where not.

    A score has SAPO's mean for its unit, above doing nothing: where SAPO earns less than that, there is none.
    """
    labels = labels_of(records)
    baselines = [label for label in labels if label in BASELINES] if "sapo" in labels else []
    common = [
        task
        for task in tasks_of(records)
        if baselines and all(seed_means(records, task, label, agent) for label in baselines)
    ]
    scored = [task for task in common if _mean(records, task, "sapo", agent) > _do_nothing(records, task)]
    return scored, [task for task in common if task not in scored]


def normalized_scores(records: Sequence[Record], agent: str) -> dict[str, list[list[float]]]:
    """Return each algorithm's scores, one list for each of the `scored_tasks`: 0 is doing nothing, 1 is SAPO's mean.

    A variation that has not run on all of these has no scores, and a sweep, which has no plain SAPO, has none at all.
    """
    scores: dict[str, list[list[float]]] = {label: [] for label in labels_of(records)}
    for task in scored_tasks(records, agent)[0]:
        zero, one = _do_nothing(records, task), _mean(records, task, "sapo", agent)
        for label, tasks in scores.items():
            tasks.append([(mean - zero) / (one - zero) for mean in seed_means(records, task, label, agent)])
    return {label: tasks for label, tasks in scores.items() if tasks and all(tasks)}


def _returns_table(records: Sequence[Record], agent: str, *, with_published: bool) -> str:
    tasks, ablated = tasks_of(records), any(record.algo in ABLATIONS for record in records)
    best = {task: _best_label(records, task, agent) for task in tasks}
    rows = []
    for label in labels_of(records):
        cells = []
        for task in tasks:
            cell = _interval_text(seed_means(records, task, label, agent))
            cell = f"**{cell}**" if label == best[task] else cell
            paper = published.RETURNS.get(task, {}).get(label)
            if with_published and paper:
                cell += f"<br>published {paper.mean:g} ± {paper.ci95:g}"
            cells.append(cell)
        if ablated:
            cells.append(_gain_over_shac(records, label, agent, with_published))
        rows.append([label, *cells])
    for name in ("do_nothing", "random"):
        cells = [_interval_text(_means_of_all(records, task, name), with_interval=False) for task in tasks]
        rows.append([f"*{name.replace('_', ' ')}*", *cells, *([""] if ablated else [])])
    return _markdown(["", *tasks, *(["gain over SHAC on DFlex"] if ablated else [])], rows)


def _best_label(records: Sequence[Record], task: str, agent: str) -> str:
    """Whose mean over seeds is highest; empty where there is nothing to compare."""
    labels = [label for label in labels_of(records) if seed_means(records, task, label, agent)]
    means = {label: _mean(records, task, label, agent) for label in labels}
    return max(means, key=lambda label: means[label]) if len(means) > 1 else ""


def _gain_over_shac(records: Sequence[Record], label: str, agent: str, with_published: bool) -> str:
    """Mean of the relative gains over the tasks of DFlex; empty while one of them is missing."""
    tasks = SUITES["dflex"].tasks
    gains = []
    for task in tasks:
        if all(seed_means(records, task, name, agent) for name in (label, "shac")):
            base = _mean(records, task, "shac", agent)
            gains.append((_mean(records, task, label, agent) - base) / abs(base))
    cell = f"{100 * sum(gains) / len(gains):+.1f} %" if len(gains) == len(tasks) and label != "shac" else ""
    paper = published.GAIN_OVER_SHAC.get(label)
    return cell + (f"<br>published {paper:+.1f} %" if with_published and paper else "")


def _aggregate(records: Sequence[Record]) -> str:
    scores = normalized_scores(records, "stochastic")
    if len(scores) < 2:
        return ""
    rows = []
    for label, strata in scores.items():
        rows.append([label, _with_bounds(interquartile_mean_ci95(strata)), str(sum(map(len, strata)))])
    scored, unscored = scored_tasks(records, "stochastic")
    remark = f", but for {', '.join(unscored)}, where SAPO earns less than doing nothing" if unscored else ""
    return (
        f"Over the {'one task' if len(scored) == 1 else f'{len(scored)} tasks'} on which all of them have run{remark}: "
        "interquartile mean of the normalised scores (0: doing nothing, 1: SAPO's mean) with sampled actions, and its "
        "95 % stratified bootstrap interval:\n\n" + _markdown(["", "IQM [95 %]", "runs"], rows)
    )


def _cost_table(records: Sequence[Record]) -> str:
    tasks = tasks_of(records)

    def cell(task: str, label: str) -> str:
        found = [record for record in records if (record.task, record.label) == (task, label)]
        if not found:
            return ""
        parts = [f"{_millions(found[0].env_steps)} steps"]
        measured = [record.wall_clock_s / 60.0 for record in found if record.wall_clock_s]
        parts += [f"{sum(measured) / len(measured):.3g} min"] if measured else []
        return ", ".join([*parts, _seeds(len(found))])

    rows = [[label, *(cell(task, label) for task in tasks)] for label in labels_of(records)]
    rows.append(["*published*", *(_published_steps(task) for task in tasks)])
    return _markdown(["", *tasks], rows)


def _remark_on_budgets(records: Sequence[Record]) -> str:
    """Say which runs were planned shorter than the full budget, and what that means."""
    short = sorted(
        {
            (record.task, record.label, record.epochs, record.full_epochs)
            for record in records
            if record.epochs < record.full_epochs
        }
    )
    under = [task for task in tasks_of(records) if _is_under_published(records, task)]
    passes = {task: _trajopt_passes(records, task) for task in tasks_of(records)}
    fewer = [f"{task} {count:.0f}" for task, count in passes.items() if round(count) < TRAJOPT_PASSES]
    lines = [f"{task} {label}: {epochs} of {full} epochs" for task, label, epochs, full in short]
    remark = "Learning rates fall to their last value over the *planned* epochs"
    if not (lines or under or fewer):
        return f"{remark}; every run had its full budget."
    what = [f"scaled down: {'; '.join(lines)}"] if lines else []
    what += [f"fewer env steps than published: {', '.join(under)}"] if under else []
    what += [f"trajopt's passes, of {TRAJOPT_PASSES}: {', '.join(fewer)}"] if fewer else []
    return (
        f"{remark}: a shorter budget is a shorter schedule, not the beginning of the long one. "
        f"Shorter here: {' — '.join(what)}."
    )


def _is_under_published(records: Sequence[Record], task: str) -> bool:
    ours = [record.env_steps for record in records if record.task == task and record.algo != "trajopt"]
    return bool(ours) and task in published.STEPS and min(ours) < 0.95 * published.STEPS[task]


def _trajopt_passes(records: Sequence[Record], task: str) -> float:
    """Return how often TrajOpt went through an episode; the published number where it has not run."""
    steps = find(task).config.max_episode_steps
    passes = [r.env_steps / (r.num_envs * steps) for r in records if (r.task, r.algo) == (task, "trajopt")]
    return min(passes, default=float(TRAJOPT_PASSES))


def _mean(records: Sequence[Record], task: str, label: str, agent: str) -> float:
    return mean_ci95(seed_means(records, task, label, agent)).estimate


def _do_nothing(records: Sequence[Record], task: str) -> float:
    return mean_ci95(_means_of_all(records, task, "do_nothing")).estimate


def _means_of_all(records: Sequence[Record], task: str, agent: str) -> list[float]:
    """One value a seed of the starts: a baseline that does not learn earns the same beside every algorithm."""
    return list({r.seed: r.agents[agent]["mean"] for r in records if r.task == task}.values())


def _interval_text(means: Sequence[float], *, with_interval: bool = True) -> str:
    if not means:
        return "–"
    interval = mean_ci95(means)
    if not with_interval:
        return _figure(interval.estimate)
    if len(means) < LEAST_SEEDS:
        return f"{_figure(interval.estimate)} ({_seeds(len(means))})"
    return f"{_figure(interval.estimate)} ± {_figure(interval.half_width)}"


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _with_bounds(interval: Interval) -> str:
    if interval.low != interval.low:
        return f"{interval.estimate:.3f}"
    return f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _figure(value: float) -> str:
    return f"{value:.1f}" if abs(value) < 1e5 else f"{value:.3g}"


def _millions(steps: float) -> str:
    return f"{steps / 1e6:.2g} M"


def _published_steps(task: str) -> str:
    return f"{_millions(published.STEPS[task])} steps" if task in published.STEPS else ""


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
