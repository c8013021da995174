"""Tables that make no robot are refused when they are written, before their numbers turn into others without a word."""

import math

import numpy as np
import pytest
from systems import make_solver, run

from rewarped_sim.engine.articulation.model import (
    ArticulationModel,
    Body,
    ContactMaterial,
    Geom,
    Inertia,
    Joint,
)

BALL = Geom(kind="sphere", size=(0.1,))
FIXED = Body(name="base", geoms=(BALL,))
SLIDER = Body(name="slider", joints=(Joint(name="slide", kind="slide"),), geoms=(BALL,))


def model(*bodies, **changes):
    return ArticulationModel(bodies=bodies, **({"control_dt_s": 0.01, "num_substeps": 1} | changes))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Body(name="b", position=(0.0, math.nan, 0.0)), "body 'b': position must be finite"),
        (lambda: Body(name="b", quaternion=(0.0, 0.0, 0.0, 0.0)), "body 'b': quaternion must not be zero"),
        (lambda: Body(name=""), "body names must not be empty"),
        (lambda: Geom(kind="box", size=(0.1, 0.1, math.nan)), "a box has 3 finite sizes > 0"),
        (lambda: Geom(kind="sphere", size=(math.inf,)), "a sphere has 1 finite sizes > 0"),
        (
            lambda: Geom(kind="sphere", size=(0.1,), density=math.inf),
            "density must be >= 0 and finite, got inf",
        ),
        (
            lambda: Geom(kind="sphere", size=(0.1,), position=(0.0, 0.0, math.inf)),
            "geom: position must be finite",
        ),
        (
            lambda: Geom(kind="sphere", size=(0.1,), quaternion=(0.0,) * 4),
            "geom: quaternion must not be zero",
        ),
        (lambda: Joint(name="j", kind="hinge", rest=math.nan), "joint 'j': rest must be finite"),
        (lambda: Joint(name="j", kind="hinge", axis=(math.nan, 0.0, 1.0)), "joint 'j': axis must be finite"),
        (
            lambda: Joint(name="j", kind="hinge", damping=math.inf),
            "joint 'j': damping must be >= 0 and finite",
        ),
        (lambda: ContactMaterial(friction=math.inf), "friction must be >= 0 and finite, got inf"),
        (lambda: Inertia(mass=math.inf, matrix=np.eye(3)), "mass must be > 0 and finite, got inf"),  # type: ignore[arg-type]
        (lambda: model(SLIDER, gravity=(0.0, 0.0, math.nan)), "gravity must be finite"),
        (lambda: model(SLIDER, control_dt_s=math.inf), "control_dt_s must be finite"),
        (
            lambda: model(FIXED, SLIDER, contact_pairs=(("base", "slider"), ("slider", "base"))),
            "'base' and 'slider' twice, which would double their forces",
        ),
    ],
)
def test_numbers_and_names_that_make_no_robot_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_start_pose_is_a_rotation_whatever_the_length_of_its_quaternion():
    root = (Joint(name="root", kind="free"),)
    start = model(Body(name="b", quaternion=(0.0, 0.0, 1.2, 1.6), joints=root, geoms=(BALL,))).start_q()
    assert start[3:] == pytest.approx((0.0, 0.0, 0.6, 0.8))


def test_a_robot_without_limits_or_shapes_is_none_the_worse():
    joint = Joint(name="j", kind="hinge", upper=math.inf, lower=-math.inf)
    arm = model(
        Body(name="b", joints=(joint,), inertia=Inertia(mass=1.0, matrix=tuple(map(tuple, np.eye(3)))))
    )  # type: ignore[arg-type]
    q, _ = run(make_solver(arm), {"joint_q": np.zeros((1, 1)), "joint_qd": np.ones((1, 1))})
    assert q[0, 0] == pytest.approx(0.01)
