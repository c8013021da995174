"""The two precisions every kernel exists in: float32 to run, float64 as the oracle of its gradients."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import warp as wp


@dataclass(frozen=True)
class Scalars:
    """Warp types of one precision. Kernel factories take one of these and close over its members."""

    real: Any
    vec3: Any
    vec4: Any
    mat33: Any
    quat: Any
    numpy: type


FLOAT32 = Scalars(
    real=wp.float32, vec3=wp.vec3f, vec4=wp.vec4f, mat33=wp.mat33f, quat=wp.quatf, numpy=np.float32
)
FLOAT64 = Scalars(
    real=wp.float64, vec3=wp.vec3d, vec4=wp.vec4d, mat33=wp.mat33d, quat=wp.quatd, numpy=np.float64
)
