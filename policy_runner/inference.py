"""Run a policy network on the CPU, one observation at a time, in a thread that nobody has to wait for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from policy_runner.bundle import ACTIONS_OUTPUT, Bundle, input_shapes
from policy_runner.contract import PolicyContract
from policy_runner.realtime import current_priority, go_first, take_turns

Float32 = NDArray[np.float32]

ACTION_SLACK = 1e-4
"""How far beyond [-1, 1] round-off may take an action."""


class InferenceError(RuntimeError):
    """The network was given, or gave, what no command may be computed from."""


class InferenceLateError(InferenceError):
    """The network did not answer in time."""


class Network(Protocol):
    """Observation in, action out; see `Policy`."""

    @property
    def contract(self) -> PolicyContract:
        """What goes in and what comes out."""
        ...

    @property
    def digest(self) -> str:
        """Of the bundle that it comes from."""
        ...

    def act(self, observation: Mapping[str, Float32]) -> Float32:
        """Return the action (num_joints,) in [-1, 1], or raise."""
        ...


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """Open a model for inference on one CPU thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # these networks take microseconds: a second thread only adds jitter
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; they are raised as well
    # else bytes that look like onnxruntime's own format are taken for it, which nothing here has checked
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Policy:
    """The network of a bundle: observation in, action out, finite on both sides."""

    def __init__(self, bundle: Bundle) -> None:
        self.contract = bundle.contract
        self.digest = bundle.digest
        self._session = open_session(bundle.policy)
        zeros = {
            name: np.zeros((1, *shape), np.float32) for name, shape in input_shapes(bundle.contract).items()
        }
        self._session.run([ACTIONS_OUTPUT], zeros)  # the first run allocates, and takes longer than others

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


class InferenceThread:
    """A network in a thread of its own: whoever asks it waits no longer than a budget, whatever it does."""

    def __init__(self, network: Network, *, budget_s: float, priority: int = 0) -> None:
        """Start the thread, with a real-time priority where that is not 0; `close` ends it.

        While it owes an answer that was given up, it has none: a network that hangs leaves others their share.
        """
        self.contract, self.digest = network.contract, network.digest
        self._budget_s = budget_s
        self._owes_answer = False
        self._observations: queue.SimpleQueue[Mapping[str, Float32] | None] = queue.SimpleQueue()
        # no SimpleQueue: where a signal's handler outlasts the timeout of its `get`, that waits for ever
        self._answers: queue.Queue[Float32 | Exception] = queue.Queue()
        # nothing of `self` goes in, so that a network that hangs for ever keeps no more than itself alive
        arguments = (network, self._observations, self._answers, priority)
        self._thread = threading.Thread(target=_answer, args=arguments, name="inference", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether the network is free, rather than still busy with an observation that nobody waits for."""
        if self._owes_answer:
            try:
                self._answers.get_nowait()  # too late to be of use
            except queue.Empty:
                return False
            self._owes_answer = False
        return True

    def act(self, observation: Mapping[str, Float32]) -> Float32:
        """Return the action (num_joints,) in [-1, 1] for one observation; see `Policy.act`.

        Raises:
            InferenceLateError: there is no answer within the budget, or still none to an earlier observation.
            Exception: what the network raised.
        """
        if not self.ready:
            raise InferenceLateError("still busy with an earlier observation")
        self._observations.put(observation)
        try:
            answer = self._answers.get(timeout=self._budget_s)
        except queue.Empty:
            self._owes_answer = True
            if (thread := self._thread.native_id) is not None:
                take_turns(thread)
            raise InferenceLateError(f"no action within {self._budget_s:.4f} s") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """End the thread once it is free; does not wait for it."""
        self._observations.put(None)


def _answer(
    network: Network,
    observations: queue.SimpleQueue[Mapping[str, Float32] | None],
    answers: queue.Queue[Float32 | Exception],
    priority: int,
) -> None:
    go_first(priority)  # or not: who asked for it knows from its own thread whether it may be had
    granted = current_priority()
    while (observation := observations.get()) is not None:
        if current_priority() != granted:  # it was late
            go_first(granted)
        try:
            answers.put(network.act(observation))
        except Exception as error:  # whatever it is, it is an answer
            answers.put(error)
