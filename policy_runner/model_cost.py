"""What a model takes of a processor, and what a runner allows."""

from __future__ import annotations

from dataclasses import dataclass

MAX_OPEN_S = 1.0
"""For opening a model [s]; a good one takes a hundredth of it."""


@dataclass(frozen=True, kw_only=True)
class ModelCost:
    """What one model took."""

    open_s: float
    """Processor time for opening it [s], which hardly depends on what else the machine does."""
    step_s: float
    """Time by the clock for one observation, the fastest of several [s]; too short for processor time."""

    def problem(self, control_dt_s: float) -> str:
        """Say why no runner can run the model with this control period [s]; empty if one can."""
        if self.open_s > MAX_OPEN_S:
            return f"opening takes {self.open_s:.3g} s of processor time, expected at most {MAX_OPEN_S:g} s"
        if self.step_s > control_dt_s:
            return f"a step takes {self.step_s:.3g} s, but the control period is {control_dt_s:.3g} s"
        return ""
