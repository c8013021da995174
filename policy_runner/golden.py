"""Run a model on the observations that its bundle brings along, and compare with the actions it must give."""

from __future__ import annotations

import io
import math
import time

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from policy_runner.bundle import (
    ACTIONS_OUTPUT,
    GOLDEN,
    GOLDEN_TOLERANCE,
    MAX_FILE_BYTES,
    POLICY,
    Bundle,
    BundleError,
    input_shapes,
)
from policy_runner.inference import open_session
from policy_runner.model_cost import ModelCost


def check_golden(bundle: Bundle) -> ModelCost:
    """Run the fused model on the golden observations, compare with the golden actions, and say what that took.

    Raises:
        BundleError: the pairs are malformed or not finite, the model does not run, or an action differs by
            more than `GOLDEN_TOLERANCE`.
    """
    pairs = _read_golden(bundle)
    names = list(input_shapes(bundle.contract))
    fastest_s = math.inf
    try:
        before_s = time.process_time()
        session = open_session(bundle.policy)
        opened_s = time.process_time() - before_s
        for index, expected in enumerate(pairs[ACTIONS_OUTPUT]):
            inputs = {name: pairs[name][index : index + 1] for name in names}
            before_s = time.perf_counter()
            (found,) = session.run([ACTIONS_OUTPUT], inputs)
            fastest_s = min(fastest_s, time.perf_counter() - before_s)
            error = np.abs(np.asarray(found)[0] - expected).max()
            if not error <= GOLDEN_TOLERANCE:  # so that NaN fails
                raise BundleError(
                    f"{GOLDEN}: pair {index}: {POLICY} differs by {error:.3g}, allowed {GOLDEN_TOLERANCE:g}"
                )
    except BundleError:
        raise
    except Exception as error:  # onnxruntime's errors share no base class
        raise BundleError(f"{POLICY}: onnxruntime cannot run it: {error}") from error
    return ModelCost(open_s=opened_s, step_s=fastest_s)


def _read_golden(bundle: Bundle) -> dict[str, NDArray[np.float32]]:
    shapes = input_shapes(bundle.contract) | {ACTIONS_OUTPUT: (bundle.contract.action.size,)}
    try:
        with NpzFile(io.BytesIO(bundle.files[GOLDEN]), allow_pickle=False) as archive:
            if sorted(archive.files) != sorted(shapes):
                raise BundleError(
                    f"{GOLDEN}: expected arrays {sorted(shapes)}, found {sorted(archive.files)}"
                )
            size = sum(entry.file_size for entry in archive.zip.infolist())
            if size > MAX_FILE_BYTES:
                raise BundleError(f"{GOLDEN}: expected at most {MAX_FILE_BYTES} bytes unpacked, found {size}")
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
    except BundleError:
        raise
    except Exception as error:  # of zipfile, zlib, struct, tokenize and NumPy, on bytes from elsewhere
        raise BundleError(f"{GOLDEN}: not an archive of plain arrays: {error}") from error
    count = arrays[ACTIONS_OUTPUT].shape[0] if arrays[ACTIONS_OUTPUT].ndim else 0
    if count == 0:
        raise BundleError(f"{GOLDEN}: expected at least one pair, found none")
    for name, shape in shapes.items():
        values = arrays[name]
        if values.dtype != np.float32 or values.shape != (count, *shape):
            raise BundleError(
                f"{GOLDEN}: {name}: expected float32 {(count, *shape)}, found {values.dtype} {values.shape}"
            )
        if not np.isfinite(values).all():
            raise BundleError(f"{GOLDEN}: {name}: expected finite values, found NaN or infinity")
    return arrays
