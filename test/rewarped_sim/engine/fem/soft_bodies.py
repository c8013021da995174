"""Small soft bodies for tests, and a solver's control step as a plain function of NumPy arrays."""

from itertools import permutations, product

import numpy as np

from rewarped_sim.engine.fem.mesh import signed_volumes
from rewarped_sim.engine.fem.model import FemModel, Ground
from rewarped_sim.engine.fem.solver import FemSolver
from rewarped_sim.engine.scalars import FLOAT64

GAINS = {"stiffness": 2.0e3, "friction_stiffness": 10.0, "friction": 0.7}
GROUND = Ground(damping=5.0, **GAINS)
PUBLISHED_GROUND = Ground(damping=0.1, law="published", **GAINS)


def brick(size=(2, 1, 1), cell=0.3, irregular=0.15):
    """Vertices and tetrahedra of a brick of cells, its inner regularity disturbed by a share of a cell's edge."""
    tets, index = [], {}
    for corner in product(*map(range, size)):
        for order in permutations(range(3)):
            point, way = list(corner), [corner]
            for axis in order:
                point[axis] += 1
                way.append(tuple(point))
            tets.append([index.setdefault(p, len(index)) for p in way])
    vertices = cell * np.array(list(index), float)
    vertices += irregular * cell * np.random.default_rng(0).uniform(-1.0, 1.0, vertices.shape)
    tets = np.array(tets, np.int32)
    inverted = signed_volumes(vertices, tets) < 0.0
    tets[inverted, 2:] = tets[inverted, :1:-1]
    return vertices, tets


def model(*, substeps=1, dt=2.0e-4, **changes):
    """A soft brick without ground unless told otherwise."""
    vertices, tets = brick()
    settings = {
        "vertices": vertices,
        "tets": tets,
        "density": 1.0,
        "mu": 600.0,
        "lam": 1000.0,
        "damping": 1.0,
        "vertex_radius": 0.05,
        "control_dt_s": substeps * dt,
        "num_substeps": substeps,
    }
    return FemModel(**settings | changes)


def start(soft, *, num_envs=1, height=0.5, strain=0.1, speed=1.0, seed=1):
    """Random states around the rest shape, lifted by `height`: (num_envs, num_vertices, 6); and activations."""
    rng = np.random.default_rng(seed)
    state = np.zeros((num_envs, soft.num_vertices, 6))
    state[..., :3] = soft.vertices
    state[..., 2] += height
    state[..., :3] += strain * 0.3 * rng.uniform(-1.0, 1.0, state[..., :3].shape)
    state[..., 3:] = speed * rng.uniform(-1.0, 1.0, state[..., 3:].shape)
    return state, 0.3 * rng.uniform(-1.0, 1.0, (num_envs, soft.num_tets))


class ControlStep:
    """The first slot of a solver."""

    def __init__(self, soft, *, num_envs=1, scalars=FLOAT64, num_threads=1):
        self.solver = FemSolver(
            soft, num_envs=num_envs, num_slots=1, scalars=scalars, num_threads=num_threads
        )
        self._real = scalars.numpy
        self._last = soft.num_substeps

    def __call__(self, state, activation):
        """All states of the step, (num_substeps + 1, num_envs, num_vertices, 6)."""
        rows = np.full(self.solver.state.shape, np.nan, self._real)
        rows[0] = state
        self.solver.state.assign(rows)
        self.solver.activation.assign(activation[None].astype(self._real))
        self.solver.forward(0)
        return self.solver.state.numpy().copy()

    def gradient(self, result_bar):
        """Adjoints of the state and of the activations that the last call began with."""
        self.solver.state_bar.assign(result_bar.astype(self._real))
        self.solver.activation_bar.fill_(np.nan)
        self.solver.backward(0)
        return self.solver.state_bar.numpy().copy(), self.solver.activation_bar.numpy().copy()
