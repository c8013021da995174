"""Load policies from where they are allowed to come from, beside the control loop."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from rclpy.executors import Executor
from rclpy.task import Future

from policy_runner.allowed import AllowedBundles
from policy_runner.inference import InferenceThread, Policy
from policy_runner.realtime import be_as_nice_as_the_process
from policy_runner.settings import RunnerSettings, SettingsError
from policy_runner.vet import VetLimits, load_vetted


class PolicyLoader:
    """Vets and loads policies. Which ones are allowed is settled when the node starts, and never after."""

    def __init__(self, settings_at_start: RunnerSettings) -> None:
        self._allowed = AllowedBundles.by(settings_at_start)
        self._exchanged = self._refused = 0
        self._last_refused = ""

    @property
    def diagnosis(self) -> Mapping[str, object]:
        """What there is to say of `~/load_policy`, by name."""
        return {
            "policies_exchanged": self._exchanged,
            "policies_refused": self._refused,
            "last_refused_policy": self._last_refused,
        }

    def note(self, exchanged: bool, message: str) -> None:
        """Count a request: whether it led to another policy, and what was answered."""
        if exchanged:
            self._exchanged += 1
        else:
            self._refused, self._last_refused = self._refused + 1, message

    def load(self, path: str, settings: RunnerSettings) -> InferenceThread:
        """Read a bundle, have a child process vet it, and open it in a thread; takes about a second.

        Raises:
            SettingsError: no path is given.
            BundleError: the bundle is refused.
        """
        if not path:
            raise SettingsError("policy: not set; give the folder of a policy bundle")
        bundle = load_vetted(path, VetLimits(wall_s=settings.vet_timeout_s), self._allowed)
        return InferenceThread(
            Policy(bundle),
            budget_s=settings.inference_budget(bundle.contract),
            priority=max(settings.realtime_priority - 1, 0),  # the control loop must be able to give up on it
        )

    def load_beside(
        self, path: str, settings: RunnerSettings, executor: Executor | None
    ) -> Future[InferenceThread | Exception]:
        """Load a policy in a thread; the future gives it, for the caller to close, or the error of its refusal.

        Its own thread is started from that thread too: the control loop would wait for it to come up.
        """
        future: Future[InferenceThread | Exception] = Future(executor=executor)

        def work() -> None:
            be_as_nice_as_the_process()
            try:
                future.set_result(self.load(path, settings))
            except Exception as error:  # all of them: the caller waits for an answer
                future.set_result(error)

        threading.Thread(target=work, name="load_policy", daemon=True).start()
        return future
