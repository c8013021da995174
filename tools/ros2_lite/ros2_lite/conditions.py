"""Whether an action is carried out (`launch.conditions`)."""

from __future__ import annotations

from .context import LaunchContext
from .substitutions import SomeText, perform, to_bool


class IfCondition:
    """Holds if the text is true or 1."""

    def __init__(self, predicate_expression: SomeText) -> None:
        self.predicate_expression = predicate_expression

    def evaluate(self, context: LaunchContext) -> bool:
        """Return whether the condition holds; raises `ValueError` for text that is not a boolean."""
        return to_bool(perform(context, self.predicate_expression))


class UnlessCondition(IfCondition):
    """Holds if the text is false or 0."""

    def evaluate(self, context: LaunchContext) -> bool:
        """Return whether the condition holds; raises `ValueError` for text that is not a boolean."""
        return not super().evaluate(context)
