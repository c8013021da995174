"""Returns that papers report, to be put beside ours.

Xing, Luk and Oh, "Stabilizing Reinforcement Learning in Differentiable Multiphysics Simulation", ICLR 2025 (arXiv
2412.12089): Table 2 (Rewarped tasks), Table 3 (ablations on HandFlip), and of its workshop version Table 5 (DFlex
locomotion) and Table 6 (ablations on it). Each figure is the mean return of the final policy, with sampled actions, and
half the 95 % confidence interval, over 10 seeds with twice as many episodes as there are envs.
"""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """A figure of a table."""

    mean: float
    ci95: float


RETURNS: dict[str, dict[str, Published]] = {
    "ant_run": {
        "ppo": Published(2048.7, 36.6),
        "sac": Published(2063.6, 13.9),
        "trajopt": Published(915.5, 29.6),
        "apg": Published(258.7, 20.3),
        "shac": Published(3621.0, 54.4),
        "sapo": Published(4535.9, 24.5),
    },
    "hand_reorient": {
        "ppo": Published(5.9, 4.9),
        "sac": Published(70.5, 10.2),
        "trajopt": Published(-12.5, 2.0),
        "apg": Published(-11.6, 1.9),
        "shac": Published(-2.5, 1.8),
        "sapo": Published(221.7, 9.5),
    },
    "rolling_flat": {
        "ppo": Published(81.2, 0.1),
        "sac": Published(83.0, 0.3),
        "trajopt": Published(81.5, 0.1),
        "apg": Published(86.9, 0.4),
        "shac": Published(86.8, 0.4),
        "sapo": Published(100.4, 0.4),
    },
    "soft_jumper": {
        "ppo": Published(261.5, 12.4),
        "sac": Published(-161.8, 2.5),
        "trajopt": Published(437.2, 17.7),
        "apg": Published(956.6, 15.6),
        "shac": Published(853.3, 10.2),
        "sapo": Published(1820.5, 47.9),
    },
    "hand_flip": {
        "ppo": Published(7.3, 1.1),
        "sac": Published(4.6, 1.1),
        "trajopt": Published(27.3, 2.6),
        "apg": Published(38.2, 3.5),
        "shac": Published(32.7, 2.9),
        "sapo": Published(90.0, 2.2),
        "sapo/no_soft_value": Published(77, 3),
        "sapo/no_entropy": Published(59, 4),
        "sapo/neither": Published(56, 3),
    },
    "fluid_move": {
        "ppo": Published(27.3, 0.2),
        "sac": Published(28.2, 0.7),
        "trajopt": Published(27.0, 0.1),
        "apg": Published(26.3, 0.3),
        "shac": Published(21.7, 0.4),
        "sapo": Published(30.6, 0.4),
    },
    "hopper": {
        "ppo": Published(3155, 30),
        "sac": Published(3833, 50),
        "apg": Published(590, 3),
        "shac": Published(4939, 3),
        "sapo": Published(5060, 18),
        "sapo/no_soft_value": Published(4882, 7),
        "sapo/neither": Published(5036, 2),
    },
    "ant": {
        "ppo": Published(3883, 60),
        "sac": Published(3366, 25),
        "apg": Published(368, 11),
        "shac": Published(7779, 70),
        "sapo": Published(8610, 40),
        "sapo/no_soft_value": Published(7729, 52),
        "sapo/neither": Published(7897, 30),
    },
    "humanoid": {
        "ppo": Published(414, 45),
        "sac": Published(4628, 120),
        "apg": Published(783, 16),
        "shac": Published(8256, 74),
        "sapo": Published(8469, 58),
        "sapo/no_soft_value": Published(8389, 76),
        "sapo/neither": Published(7731, 91),
    },
    "snu_humanoid": {
        "ppo": Published(135, 3),
        "sac": Published(846, 44),
        "apg": Published(149, 1),
        "shac": Published(5755, 67),
        "sapo": Published(6427, 53),
        "sapo/no_soft_value": Published(6392, 54),
        "sapo/neither": Published(6032, 58),
    },
}
"""By task and algorithm."""

GAIN_OVER_SHAC: dict[str, float] = {
    "sapo": 6.8,
    "sapo/no_soft_value": 2.7,
    "sapo/neither": 0.5,
}
"""Mean gain over SHAC on the four DFlex tasks [%], by variation (workshop version, Table 6)."""

STEPS: dict[str, float] = {
    "ant_run": 4.1e6,
    "hand_reorient": 4.1e6,
    "rolling_flat": 4.1e6,
    "soft_jumper": 6.2e6,
    "hand_flip": 6.2e6,
    "fluid_move": 4.1e6,
    "hopper": 10e6,
    "ant": 10e6,
    "humanoid": 10e6,
    "snu_humanoid": 10e6,
}
"""Env steps that the published runs took, by task; those of TrajOpt fewer."""
