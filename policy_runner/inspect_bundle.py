"""Say what a policy bundle holds and whether a runner would take it.

    python -m policy_runner.inspect_bundle FOLDER [--json]

Exit codes: 0 the bundle would be taken, 1 it is refused (the reason is on stderr), 2 the command was mistyped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from policy_runner.bundle import (
    GOLDEN_TOLERANCE,
    MANIFEST,
    OPSET,
    Bundle,
    BundleError,
    input_shapes,
    read_bundle,
)
from policy_runner.contract import ContractError, PolicyContract
from policy_runner.model_cost import ModelCost
from policy_runner.observation import ObservationBuilder
from policy_runner.vet import VetLimits, vet


def describe(contract: PolicyContract) -> str:
    """Return the contract as text to read."""
    action, cloud = contract.action, contract.point_cloud
    inputs = ", ".join(f"{name} {list(shape)}" for name, shape in input_shapes(contract).items())
    lines = [
        f"policy         {contract.policy_name}",
        f"task           {contract.task}",
        f"control rate   {1.0 / contract.control_dt_s:g} Hz",
        f"model inputs   {inputs}",
        "observation",
    ]
    for term in contract.obs_terms:
        size, where = str(list(term.shape)), f" in {term.frame!r}" if term.frame else ""
        lines.append(f"  {term.name:<16} {term.kind:<16} {size:<10} x {term.scale:g} {term.unit}{where}")
    lines.append(f"action         {action.mode}")
    limits = "joint in" if action.mode in ("velocity", "effort") else "in"  # they are of positions
    for index, joint in enumerate(action.joint_names):
        lines.append(
            f"  {joint:<16} {action.offset[index]:g} + {action.scale[index]:g} * a, "
            f"{limits} [{action.lower[index]:g}, {action.upper[index]:g}], max {action.max_velocity[index]:g} /s, "
            f"starts at {contract.default_joint_pos[index]:g}"
        )
    if cloud is not None:
        lines += [
            f"point cloud    {cloud.num_points} points by {cloud.sampler}, in frame {cloud.frame!r}",
            f"  crop           {list(cloud.crop_min)} to {list(cloud.crop_max)} m, voxel {cloud.voxel_m:g} m",
            f"  at least       {cloud.min_points} points",
        ]
    lines.append(f"training       {json.dumps(dict(contract.train), sort_keys=True)}")
    return "\n".join(lines)


def report(bundle: Bundle, cost: ModelCost) -> dict[str, Any]:
    """Return all that there is to know of a bundle that was vetted, as plain values."""
    sizes = {MANIFEST: bundle.manifest, **bundle.files}
    return {
        "sha256": bundle.digest,
        "files": {name: len(data) for name, data in sizes.items()},
        "opset": OPSET,
        "golden_tolerance": GOLDEN_TOLERANCE,
        "open_s": cost.open_s,
        "step_s": cost.step_s,
        "refused": robot_problem(bundle.contract),
        "contract": json.loads(bundle.contract.to_json()),
    }


def robot_problem(contract: PolicyContract) -> str:
    """Say why no robot can run a policy with this contract, be the bundle as sound as it may; empty if one can."""
    try:
        ObservationBuilder(contract)
    except ContractError as error:
        return str(error)
    return ""


def _describe_check(bundle: Bundle, cost: ModelCost) -> str:
    files = ", ".join(f"{name} {len(data):,} B" for name, data in bundle.files.items())
    return "\n".join(
        [
            f"sha256         {bundle.digest}",
            f"files          {files}",
            f"check          golden actions within {GOLDEN_TOLERANCE:g}; opened in {1e3 * cost.open_s:.1f} ms, "
            f"a step took {1e3 * cost.step_s:.3f} ms of {1e3 * bundle.contract.control_dt_s:g} ms",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Vet a bundle as the runner does and print what it holds; return 1 where it is refused."""
    parser = argparse.ArgumentParser(
        prog="python -m policy_runner.inspect_bundle",
        description="Vet a policy bundle as the runner does and print what it holds: contract, sha256 (for the "
        "runner's policy_sha256), sizes, and what a step takes on this machine.",
        epilog="Exit codes: 0 the bundle would be taken, 1 it is refused, 2 the command was mistyped.",
    )
    parser.add_argument("bundle", help="folder of the bundle")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON, a refusal too")
    parser.add_argument(
        "--timeout",
        type=float,
        default=10.0,
        help="refuse a bundle whose check takes longer [s] (default: 10)",
    )
    options = parser.parse_args(arguments)
    try:
        limits = VetLimits(wall_s=options.timeout)
    except ValueError as error:
        parser.error(f"--timeout: {error}")
    try:
        bundle = read_bundle(options.bundle)
        cost = vet(bundle, limits)
    except BundleError as error:
        print(f"refused: {error}", file=sys.stderr)
        if options.json:
            print(json.dumps({"refused": str(error)}))
        return 1
    if options.json:
        print(json.dumps(report(bundle, cost), indent=1))
    else:
        print(f"{describe(bundle.contract)}\n{_describe_check(bundle, cost)}")
    if problem := robot_problem(bundle.contract):
        print(f"refused: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
