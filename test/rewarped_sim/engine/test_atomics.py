"""Additions to shared elements are all counted, in both precisions; the GPU instruction is in `test_gpu_code`."""

import numpy as np
import pytest
import warp as wp

from rewarped_sim.engine.atomics import atomic_functions
from rewarped_sim.engine.scalars import FLOAT32, FLOAT64


@pytest.mark.parametrize("scalars", [FLOAT32, FLOAT64], ids=["float32", "float64"])
def test_each_element_gets_the_sum_of_all_that_is_added_to_it(scalars):
    add4, vec4 = atomic_functions(scalars).add4, scalars.vec4

    @wp.kernel(module="unique", enable_backward=False)
    def add(index: wp.array(dtype=int), values: wp.array(dtype=vec4), total: wp.array(dtype=vec4)):
        i = wp.tid()
        add4(total, index[i], values[i])

    rng = np.random.default_rng(0)
    index = rng.integers(0, 5, 200)
    values = rng.integers(-100, 100, (200, 4)).astype(
        scalars.numpy
    )  # whole numbers: sums are exact in any order
    start = rng.integers(-100, 100, (6, 4)).astype(scalars.numpy)
    total = wp.array(start, dtype=vec4, device="cpu")
    inputs = [wp.array(index, dtype=int, device="cpu"), wp.array(values, dtype=vec4, device="cpu"), total]
    wp.launch(add, 200, inputs, device="cpu")
    expected = start.copy()
    np.add.at(expected, index, values)
    np.testing.assert_array_equal(total.numpy(), expected)
