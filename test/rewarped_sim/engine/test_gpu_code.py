"""Every kernel compiles for an H200 (sm_90) on a machine without one."""

import warp as wp

from rewarped_sim.engine.kinematics import kinematics_kernels
from rewarped_sim.engine.mpm.grid import grid_kernels
from rewarped_sim.engine.mpm.transfers import transfer_kernels
from rewarped_sim.engine.scalars import FLOAT32


def solver_kernels():
    """All kernels that a float32 solver launches, by name."""
    kernels = {}
    for factory in (kinematics_kernels, grid_kernels, transfer_kernels):
        for name, member in vars(factory(FLOAT32)).items():
            if isinstance(member, wp.Kernel):
                kernels[f"{factory.__name__}.{name}"] = member
    return kernels


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
