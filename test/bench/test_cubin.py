"""Figures read from compiled kernels whose needs are known."""

import pytest
import warp as wp

from bench.cubin import Resources, atomics, resources


@wp.kernel(module="unique", enable_backward=False)
def copy(values: wp.array(dtype=float), out: wp.array(dtype=float)):
    out[wp.tid()] = values[wp.tid()]


@wp.kernel(module="unique", enable_backward=False)
def look_up(index: wp.array(dtype=int), values: wp.array(dtype=float), out: wp.array(dtype=float)):
    table = wp.zeros(shape=(50,), dtype=float)
    for i in range(50):
        table[i] = values[i]
    out[wp.tid()] = table[index[wp.tid()]]


@wp.kernel(module="unique", enable_backward=True)
def square(values: wp.array(dtype=float), out: wp.array(dtype=float)):
    out[wp.tid()] = values[wp.tid()] * values[wp.tid()]


@wp.kernel(module="unique", enable_backward=False)
def add_two(values: wp.array(dtype=wp.vec2f), out: wp.array(dtype=wp.vec2f)):
    wp.atomic_add(out, 0, values[wp.tid()])


@wp.kernel(module="unique", enable_backward=False, cuda_max_registers=24)
def invert_squeezed(values: wp.array(dtype=wp.mat44f), out: wp.array(dtype=wp.mat44f)):
    out[wp.tid()] = wp.inverse(values[wp.tid()])


@pytest.fixture
def compiled(tmp_path):
    def compile_for_sm_90(kernel, *, use_ptx=False):
        files = wp.compile_aot_module(kernel.module, arch=90, module_dir=tmp_path, use_ptx=use_ptx)
        (code,) = (path for path in files if path.suffix in (".cubin", ".ptx"))
        return code.read_bytes()

    return compile_for_sm_90


def only(found):
    (value,) = found.values()
    return value


def test_a_copy_takes_few_registers_and_no_stack(compiled):
    taken = only(resources(compiled(copy)))
    assert taken.registers <= 32
    assert taken.stack_bytes == 0
    assert 0 < taken.code_bytes < 20_000


def test_an_array_indexed_at_run_time_lies_on_the_stack(compiled):
    assert only(resources(compiled(look_up))).stack_bytes >= 4 * 50


def test_a_kernel_that_may_take_few_registers_spills_the_rest(compiled):
    taken = only(resources(compiled(invert_squeezed)))
    assert taken.registers <= 24
    assert taken.stack_bytes > 0


def test_a_differentiable_kernel_is_two_functions(compiled):
    forward, backward = sorted(resources(compiled(square)), reverse=True)
    assert forward.endswith("_cuda_kernel_forward") and backward.endswith("_cuda_kernel_backward")


def test_atomics_are_counted_per_function(compiled):
    scalar, vector = only(atomics(compiled(add_two, use_ptx=True)))
    assert scalar > 0 and scalar % 2 == 0  # a compiler may write the body of a loop more than once
    assert vector == 0
    counts = atomics(compiled(square, use_ptx=True))
    assert {name.rsplit("_", 1)[1]: sum(found) for name, found in counts.items()}["forward"] == 0


def test_threads_that_fit_follow_from_the_register_file():
    def threads(registers):
        return Resources(registers=registers, stack_bytes=0, code_bytes=1).resident_threads()

    assert [threads(n) for n in (32, 33, 64, 128, 129, 255)] == [2048, 1536, 1024, 512, 256, 256]


def test_other_files_are_refused():
    with pytest.raises(ValueError, match="not a cubin: expected a 64-bit ELF file, got bytes b'//PTX'"):
        resources(b"//PTX code")
