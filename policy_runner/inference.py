"""Run a policy network on the CPU, one observation at a time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from policy_runner.bundle import ACTIONS_OUTPUT, Bundle

Float32 = NDArray[np.float32]

ACTION_SLACK = 1e-4
"""How far beyond [-1, 1] round-off may take an action."""


class InferenceError(RuntimeError):
    """The network was given, or gave, what no command may be computed from."""


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """Open a model for inference on one CPU thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # these networks take microseconds: a second thread only adds jitter
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; they are raised as well
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Policy:
    """The network of a bundle: observation in, action out, finite on both sides."""

    def __init__(self, bundle: Bundle) -> None:
        self.contract = bundle.contract
        self.digest = bundle.digest
        self._session = open_session(bundle.policy)

    def act(self, observation: Mapping[str, Float32]) -> Float32:
        """Compute the action for one observation.

        observation: the model's inputs by name, each with a leading batch dimension of 1 (see `bundle`).
        Returns (num_joints,) in [-1, 1].

        Raises:
            InferenceError: an input is not finite, or the action is not finite or not in [-1, 1].
        """
        for name, values in observation.items():
            if not np.isfinite(values).all():
                raise InferenceError(
                    f"input {name!r}: {np.count_nonzero(~np.isfinite(values))} values are not finite"
                )
        (actions,) = self._session.run([ACTIONS_OUTPUT], dict(observation))
        action = np.asarray(actions, np.float32)[0]
        if not np.isfinite(action).all():
            raise InferenceError(f"action is not finite: {action.tolist()}")
        if np.abs(action).max() > 1.0 + ACTION_SLACK:
            raise InferenceError(f"action is not within [-1, 1]: {action.tolist()}")
        return np.clip(action, -1.0, 1.0)
