"""What the runner says about itself, in `~/status` and `/diagnostics`."""

from __future__ import annotations

from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from policy_runner.cloud_worker import CloudDrop
from policy_runner.controller import Controller
from policy_runner.heap import heap_in_use_bytes
from policy_runner.loop_watch import LoopWatch
from policy_runner.nodes.cloud_input import CloudInput
from policy_runner.nodes.robot_input import RobotInput
from policy_runner.realtime import current_priority
from policy_runner.safety import RECOVERABLE, HoldReason, Mode

GRAVE = frozenset(HoldReason) - RECOVERABLE - {HoldReason.DISARMED, HoldReason.STOPPED}
"""Reasons of holding that are errors: they do not pass by themselves, and no operator wanted them."""


def runner_status(
    *,
    name: str,
    state: str,
    problem: str,
    controller: Controller | None,
    clouds: CloudInput | None,
    robot: RobotInput | None,
    loads: Mapping[str, object],
    transport: str,
    recording: Mapping[str, object],
) -> DiagnosticStatus:
    """Return level, one line of text, and every counter by name.

    state: of the lifecycle; problem: why the last transition failed, or empty; transport: what is known of
    the way that large messages take; loads, recording: what there is to say of them, by name.
    """
    values: dict[str, object] = {"state": state, "problem": problem, "transport": transport}
    if (in_use := heap_in_use_bytes()) is not None:
        values["heap_in_use_mb"] = f"{1e-6 * in_use:.3f}"
    if controller is not None:
        fault = controller.fault()
        values |= {
            "task": controller.contract.task,
            "policy_sha256": controller.acting.policy.digest,
            "mode": controller.mode.value,
            "reason": controller.reason.value if controller.reason else "",
            "fault_now": fault.value if fault else "",
            "detail": controller.detail(controller.reason),
            "policy_error": controller.policy_error,
            "saturation": f"{controller.saturation:.3f}",
        }
        values |= _loop_values(controller.loop)
        values |= {f"age_{input_}_s": f"{age_s:.3f}" for input_, age_s in controller.ages_s().items()}
        values |= {f"held_{reason.value}": controller.holds.get(reason, 0) for reason in HoldReason}
    if clouds is not None:
        values |= {f"dropped_{reason.value}": clouds.drops[reason] for reason in CloudDrop}
        values["last_dropped_cloud"] = clouds.last_drop
        values["dropped_transform_bad"] = clouds.refused_transforms
        values["cloud_resubscriptions"] = clouds.resubscriptions
    if robot is not None:
        values |= {f"dropped_{reason}": count for reason, count in robot.drops.items()}
        values["last_dropped_message"] = robot.last_drop
    values |= loads
    values |= recording
    return DiagnosticStatus(
        level=_level(problem, controller),
        name=name,
        message=_message(state, problem, controller),
        hardware_id=controller.contract.policy_name if controller is not None else "",
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )


def _loop_values(loop: LoopWatch) -> dict[str, object]:
    values: dict[str, object] = {
        "ticks": loop.ticks,
        "stalls": loop.stalls,
        "deadline_misses": loop.deadline_misses,
        "realtime_priority": current_priority(),
    }
    if times := loop.tick_times():
        values |= {f"tick_{name}_ms": f"{1e3 * value:.3f}" for name, value in vars(times).items()}
    return values


def _level(problem: str, controller: Controller | None) -> bytes:
    if problem or (controller is not None and controller.reason in GRAVE):
        return DiagnosticStatus.ERROR
    if controller is not None and controller.mode in (Mode.HOLDING, Mode.STOPPED):
        return DiagnosticStatus.WARN
    return DiagnosticStatus.OK


def _message(state: str, problem: str, controller: Controller | None) -> str:
    parts = [state]
    if controller is not None and state == "active":
        parts.append(controller.mode.value)
        if controller.reason is not None and controller.reason.value != controller.mode.value:
            parts.append(controller.reason.value)
        if detail := controller.detail(controller.reason):
            parts.append(detail)
    if problem:
        parts.append(problem)
    return ": ".join(parts)
