"""How far a plastic material returns to its yield surface: the two numbers of the return map and their slopes."""

from functools import cache
from typing import Any

import warp as wp

from rewarped_sim.engine.scalars import Scalars


@cache
def flow_struct(scalars: Scalars) -> Any:
    """The Warp struct of a flow, e' = e - k dev(e) + h I, with the slopes that are not zero for every law."""
    real = scalars.real

    @wp.struct
    class Flow:
        k: real
        h: real
        k_length: real  # by |dev e|
        k_trace: real  # by tr e
        h_trace: real
        k_mu: real
        k_lam: real
        k_yield: real
        k_friction: real
        k_cohesion: real
        h_cohesion: real

    return Flow
