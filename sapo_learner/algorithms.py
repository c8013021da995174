"""The algorithms by name, and named variations of their settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sapo_learner.apg import Apg, ApgConfig
from sapo_learner.learner import Learner
from sapo_learner.ppo import Ppo, PpoConfig
from sapo_learner.sac import Sac, SacConfig
from sapo_learner.sapo import Sapo, SapoConfig
from sapo_learner.shac import Shac, ShacConfig
from sapo_learner.trajopt import TrajOpt, TrajOptConfig


@dataclass(frozen=True)
class Algorithm:
    """What it takes to run an algorithm."""

    config: type[Any]
    """Its settings, a dataclass whose defaults are the published ones."""
    learner: Callable[..., Learner]
    """Called as learner(env, config, seed=..., planned_epochs=...), and with ranks=... where it `scales`."""
    differentiates: bool = True
    """It back-propagates through the simulator."""
    scales: bool = True
    """Several processes can carry it out as one."""


ALGORITHMS: Mapping[str, Algorithm] = {
    "sapo": Algorithm(SapoConfig, Sapo),
    "shac": Algorithm(ShacConfig, Shac),
    "apg": Algorithm(ApgConfig, Apg),
    "ppo": Algorithm(PpoConfig, Ppo, differentiates=False),
    "sac": Algorithm(SacConfig, Sac, differentiates=False, scales=False),
    "trajopt": Algorithm(TrajOptConfig, TrajOpt),
}

_SHAC_CRITIC = {"num_critics": 1, "target_keep": 0.995}
_SHAC_OPTIMISATION = {
    "activation": "elu",
    "weight_gain": math.sqrt(2.0),
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
}
_REUSE = {"policy_epochs": 5}
_LEVEL = {"critic_head_gain": 0.01, "meet_mean": True}

ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    # the published ablations: entropy in the critics' targets, in the actor's objective, in neither
    "sapo/no_soft_value": {"entropy_in_targets": False},
    "sapo/no_entropy": {"entropy_in_actor": False},
    "sapo/neither": {"entropy_in_targets": False, "entropy_in_actor": False},
    # its design choices III, IV and V, each taken back to what SHAC has
    "sapo/free_std": {"state_dependent_std": False},
    "sapo/target_critic": _SHAC_CRITIC,
    "sapo/elu_adam": _SHAC_OPTIMISATION,
}
"""SAPO without one part of it, as published: differences from its own settings."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    **ABLATIONS,
    # beyond the paper: five actor steps from each backward pass, critics that begin level, and both
    "sapo/reuse": _REUSE,
    "sapo/level": _LEVEL,
    "sapo/quick": {**_REUSE, **_LEVEL},
}
"""Differences from an algorithm's own settings, by `<algorithm>/<variation>`."""

NAMES: tuple[str, ...] = (*ALGORITHMS, *PRESETS)
"""Everything that `algo` may say."""


def split_name(name: str) -> tuple[str, Mapping[str, Any]]:
    """Return the algorithm and the variation's settings of a name in `NAMES`."""
    return name.partition("/")[0], PRESETS.get(name, {})
