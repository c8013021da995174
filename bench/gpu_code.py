"""Registers, stack and atomics of every kernel of the solver, compiled for an H100 or H200 (sm_90).

Needs no GPU. Registers decide how many threads a processor keeps at once; a stack means spilled registers, the usual
reason why a kernel is suddenly slow. `test_gpu_code` compares against the figures that this writes.
"""

import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import warp as wp

from bench.cubin import atomics, resources
from bench.report import table, write
from rewarped_sim.engine.articulation.contact import ground_kernel
from rewarped_sim.engine.articulation.dynamics import dynamics_kernels
from rewarped_sim.engine.articulation.model import CONTACT_LAWS
from rewarped_sim.engine.articulation.muscles import muscle_kernel
from rewarped_sim.engine.articulation.shape_contact import pair_kernels
from rewarped_sim.engine.articulation.step import step_kernels
from rewarped_sim.engine.fem.contact import CONTACT_LAWS as FEM_CONTACT_LAWS
from rewarped_sim.engine.fem.elasticity import elasticity_kernels
from rewarped_sim.engine.fem.motion import motion_kernels
from rewarped_sim.engine.kinematics import kinematics_kernels
from rewarped_sim.engine.mpm.bodies import body_kernels
from rewarped_sim.engine.mpm.grid import grid_kernels
from rewarped_sim.engine.mpm.materials import Dough, Material
from rewarped_sim.engine.mpm.transfers import transfer_kernels
from rewarped_sim.engine.scalars import FLOAT32

ARCHITECTURE = 90


def solver_kernels() -> dict[str, wp.Kernel]:
    """Every kernel that float32 solvers launch, by name; those that depend on the material once for each."""
    found = {
        **_named("kinematics", kinematics_kernels(FLOAT32)),
        **_named("bodies", body_kernels(FLOAT32)),
        **_named("grid", grid_kernels(FLOAT32, coupled=False)),
        **_named("coupled_grid", grid_kernels(FLOAT32, coupled=True)),
        **_named("transfers", transfer_kernels(FLOAT32, frozenset({Dough.law}), material_gradient=True)),
    }
    found |= articulation_kernels() | soft_body_kernels()
    for name in ("scatter_adj", "strain_adj"):
        found[f"transfers.{name} with material gradient"] = found.pop(f"transfers.{name}")
    del found["transfers.scatter"]
    for material in get_args(Material):
        transfers = transfer_kernels(FLOAT32, frozenset({material.law}))
        for name in ("scatter", "scatter_adj", "strain_adj"):
            found[f"transfers.{name} of {material.__name__}"] = getattr(transfers, name)
    return dict(sorted(found.items()))


def articulation_kernels() -> dict[str, wp.Kernel]:
    """Those of joints, contacts and muscles."""
    return {
        **_named("articulation", dynamics_kernels(FLOAT32)),
        **_named("articulation", step_kernels(FLOAT32)),
        **{f"articulation.ground, {law}": ground_kernel(FLOAT32, law) for law in CONTACT_LAWS},
        "articulation.muscles": muscle_kernel(FLOAT32),
        **_named("articulation.pairs", pair_kernels(FLOAT32, "regularized")),
    }


def soft_body_kernels() -> dict[str, wp.Kernel]:
    """Those of tetrahedra and their vertices."""
    moves = {
        f"{name}, {law}": kernel
        for law in FEM_CONTACT_LAWS
        for name, kernel in _named("fem", motion_kernels(FLOAT32, law)).items()
    }
    return _named("fem", elasticity_kernels(FLOAT32)) | moves


def _named(group: str, kernels: SimpleNamespace) -> dict[str, wp.Kernel]:
    return {f"{group}.{name}": value for name, value in vars(kernels).items() if isinstance(value, wp.Kernel)}


def measure(name: str, kernel: wp.Kernel) -> list[dict[str, Any]]:
    """One row for a kernel, and one for its adjoint if Warp generates that."""
    with tempfile.TemporaryDirectory() as folder:
        for use_ptx in (False, True):
            wp.compile_aot_module(kernel.module, arch=ARCHITECTURE, module_dir=folder, use_ptx=use_ptx)
        (cubin,) = Path(folder).glob("*.cubin")
        (ptx,) = Path(folder).glob("*.ptx")
        taken, added = resources(cubin.read_bytes()), atomics(ptx.read_bytes())
    rows = []
    for function in sorted(taken, reverse=True):  # forward, then backward
        scalar, vector = added[function]
        rows.append(
            {
                "kernel": f"{name}, adjoint" if function.endswith("_backward") else name,
                "registers": taken[function].registers,
                "resident_threads": taken[function].resident_threads(),
                "stack_bytes": taken[function].stack_bytes,
                "code_bytes": taken[function].code_bytes,
                "atomics": scalar,
                "vector_atomics": vector,
            }
        )
    return rows


def measure_all() -> list[dict[str, Any]]:
    """Rows of all kernels."""
    return [row for name, kernel in solver_kernels().items() for row in measure(name, kernel)]


def main() -> int:
    """Measure, print, write."""
    rows = measure_all()
    print(table(rows))
    print(write("gpu_code", rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
