"""Every kernel compiles for an H200 (sm_90) on a machine without one."""

import warp as wp

from rewarped_sim.engine.kinematics import kinematics_kernels
from rewarped_sim.engine.mpm.bodies import body_kernels
from rewarped_sim.engine.mpm.grid import grid_kernels
from rewarped_sim.engine.mpm.material_table import VON_MISES
from rewarped_sim.engine.mpm.transfers import transfer_kernels
from rewarped_sim.engine.scalars import FLOAT32


def solver_kernels():
    """All kernels that a float32 solver launches, by name."""
    groups = {
        "kinematics_kernels": kinematics_kernels(FLOAT32),
        "grid_kernels": grid_kernels(FLOAT32, coupled=False),
        "coupled_grid_kernels": grid_kernels(FLOAT32, coupled=True),
        "transfer_kernels": transfer_kernels(FLOAT32, frozenset({VON_MISES})),
        "body_kernels": body_kernels(FLOAT32),
    }
    return {
        f"{group}.{name}": member
        for group, members in groups.items()
        for name, member in vars(members).items()
        if isinstance(member, wp.Kernel)
    }


def test_every_kernel_of_the_solver_compiles_for_sm_90(tmp_path):
    kernels = solver_kernels()
    assert {"transfer_kernels.scatter", "transfer_kernels.scatter_adj", "grid_kernels.update_adj"} <= set(
        kernels
    )
    for name, kernel in kernels.items():
        folder = tmp_path / name
        wp.compile_aot_module(kernel.module, arch=90, module_dir=folder, use_ptx=False)
        code = list(folder.glob("*.cubin"))
        assert len(code) == 1, name
        content = code[0].read_bytes()
        assert content[:4] == b"\x7fELF"
        assert kernel.key.encode() in content, name
