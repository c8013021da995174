"""Say what a policy bundle holds and whether a runner would take it.

python -m policy_runner.inspect_bundle FOLDER
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from policy_runner.bundle import BundleError, input_shapes
from policy_runner.contract import PolicyContract
from policy_runner.vet import load_vetted


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
        size = str(list(term.shape))
        lines.append(f"  {term.name:<16} {term.kind:<16} {size:<10} x {term.scale:g} {term.unit}")
    lines.append(f"action         {action.mode}")
    for index, joint in enumerate(action.joint_names):
        lines.append(
            f"  {joint:<16} {action.offset[index]:g} + {action.scale[index]:g} * a, "
            f"in [{action.lower[index]:g}, {action.upper[index]:g}], max {action.max_velocity[index]:g} /s"
        )
    if cloud is not None:
        lines += [
            f"point cloud    {cloud.num_points} points by {cloud.sampler}, in frame {cloud.frame!r}",
            f"  crop           {list(cloud.crop_min)} to {list(cloud.crop_max)} m, voxel {cloud.voxel_m:g} m",
            f"  at least       {cloud.min_points} points",
        ]
    lines.append(f"training       {json.dumps(dict(contract.train), sort_keys=True)}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the contract of a bundle, after vetting it as the runner does; return 1 where it is refused."""
    parser = argparse.ArgumentParser(
        prog="python -m policy_runner.inspect_bundle",
        description="Vet a policy bundle as the runner does and print its contract. Exit code 1: refused.",
    )
    parser.add_argument("bundle", help="folder of the bundle")
    parser.add_argument("--json", action="store_true", help="print the contract as JSON")
    options = parser.parse_args(arguments)
    try:
        contract = load_vetted(options.bundle).contract
    except BundleError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    print(contract.to_json() if options.json else describe(contract))
    return 0


if __name__ == "__main__":
    sys.exit(main())
