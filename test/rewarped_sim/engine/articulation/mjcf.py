"""Articulated models as MJCF, and states and accelerations between our conventions and MuJoCo's.

MuJoCo is the oracle of tests. It reads the tables with its own compiler and moves them with its own dynamics; what MJCF
cannot say, springs of ball joints and our spring law for limits, `passive_forces` computes from its formula.
"""

from xml.etree import ElementTree

import mujoco
import numpy as np

from rewarped_sim.engine.articulation.model import COORDINATES, DOFS, ArticulationModel, Body, Geom, Joint


def to_mjcf(model: ArticulationModel) -> str:
    """The model as MJCF, without contact and without limits.

    Actuators: a position servo per driven joint, then a motor of gain -max_force per muscle, which is a tendon through
    sites. Integrator is Euler with the substep's duration.
    """
    root = ElementTree.Element("mujoco", model="articulation")
    _add(root, "compiler", angle="radian", autolimits="true", inertiafromgeom="auto", balanceinertia="true")
    option = _add(
        root, "option", integrator="Euler", gravity=_text(model.gravity), timestep=_text([model.dt_s])
    )
    _add(option, "flag", contact="disable")
    elements = {"": _add(root, "worldbody")}
    for body in model.bodies:
        elements[body.name] = _add_body(elements[body.parent], body)
    tendons, actuators = _add(root, "tendon"), _add(root, "actuator")
    for joint in model.joints:
        if joint.drive_stiffness or joint.drive_damping:
            gains = {"kp": _text([joint.drive_stiffness]), "kv": _text([joint.drive_damping])}
            _add(actuators, "position", joint=joint.name, **gains)
    for muscle in model.muscles:
        tendon = _add(tendons, "spatial", name=muscle.name)
        for index, point in enumerate(muscle.points):
            site = f"{muscle.name}.{index}"
            _add(elements[point.body], "site", name=site, pos=_text(point.position))
            _add(tendon, "site", site=site)
        _add(actuators, "general", tendon=muscle.name, gainprm=_text([-muscle.max_force]))
    return ElementTree.tostring(root, encoding="unicode")


def compiled(model: ArticulationModel) -> mujoco.MjModel:
    """The model in MuJoCo, with all given inertias, those included that no solid body has and its compiler refuses."""
    compiled = mujoco.MjModel.from_xml_string(to_mjcf(model))
    for body in model.bodies:
        if body.inertia is None:
            continue
        moments, axes = np.linalg.eigh(np.array(body.inertia.matrix))
        if moments[0] + moments[1] < moments[2]:
            axes[:, 2] *= np.linalg.det(axes)
            index = compiled.body(body.name).id
            compiled.body_sameframe[index] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE
            compiled.body_inertia[index] = moments
            mujoco.mju_mat2Quat(compiled.body_iquat[index], axes.ravel())
    return compiled


def to_mujoco(model: ArticulationModel, q: np.ndarray, qd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Our (num_coordinates,) and (num_dofs,) as MuJoCo's qpos and qvel. Quaternions there are w x y z."""
    qpos = np.array(q, float)
    for joint in model.joints:
        if joint.kind in ("free", "ball"):
            end = model.coordinate(joint.name) + COORDINATES[joint.kind]
            qpos[end - 4 : end] = _wxyz(q[end - 4 : end])
    return qpos, dofs_to_mujoco(model, q, qd)


def dofs_to_mujoco(model: ArticulationModel, q: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Velocities or forces (num_dofs,) from ours to MuJoCo's degrees of freedom.

    Ours are turns about axes fixed to what a free or ball joint is attached to, MuJoCo's about axes of the body.
    """
    return _turned(model, q, values, into_body=True)


def acceleration_from_mujoco(model: ArticulationModel, q: np.ndarray, qacc: np.ndarray) -> np.ndarray:
    """MuJoCo's qacc as the time derivative of our joint_qd, both (num_dofs,).

    The axes of the body turn with it, but about the very vector that is differentiated: no further term arises.
    """
    return _turned(model, q, qacc, into_body=False)


def passive_forces(model: ArticulationModel, q: np.ndarray, qd: np.ndarray) -> np.ndarray:
    """Violated limits and springs of balls, which the MJCF does not say, on MuJoCo's degrees of freedom (num_dofs,).

    To be given as qfrc_applied.
    """
    forces = np.zeros(model.num_dofs)
    for joint in model.joints:
        at, dof = model.coordinate(joint.name), model.dof(joint.name)
        if joint.kind == "ball":
            forces[dof : dof + 3] = -joint.stiffness * q[at : at + 3]
        elif joint.kind != "free":
            beyond = min(q[at] - joint.lower, 0.0) + max(q[at] - joint.upper, 0.0)
            if beyond:
                forces[dof] = -joint.limit_stiffness * beyond - joint.limit_damping * qd[dof]
    return forces


def _add_body(parent: ElementTree.Element, body: Body) -> ElementTree.Element:
    element = _add(
        parent, "body", name=body.name, pos=_text(body.position), quat=_text(_wxyz(body.quaternion))
    )
    for joint in body.joints:
        _add_joint(element, joint)
    if body.inertia is not None:
        (xx, xy, xz), (_, yy, yz), (_, _, zz) = body.inertia.matrix
        _add(
            element, "inertial", pos=_text(body.inertia.position), mass=_text([body.inertia.mass]),
            fullinertia=_text([xx, yy, zz, xy, xz, yz]),
        )  # fmt: skip
    for geom in body.geoms:
        _add_geom(element, geom)
    return element


def _add_joint(body: ElementTree.Element, joint: Joint) -> None:
    numbers = {"damping": [joint.damping], "armature": [joint.armature]}
    if joint.kind != "free":
        numbers["pos"] = joint.position
    if joint.kind in ("hinge", "slide"):
        numbers |= {"axis": joint.axis, "stiffness": [joint.stiffness], "springref": [joint.rest]}
    texts = {name: _text(values) for name, values in numbers.items()}
    _add(body, "joint", name=joint.name, type=joint.kind, limited="false", **texts)


def _add_geom(body: ElementTree.Element, geom: Geom) -> None:
    _add(
        body, "geom", type=geom.kind, size=_text(geom.size), pos=_text(geom.position),
        quat=_text(_wxyz(geom.quaternion)), density=_text([geom.density]), contype="0", conaffinity="0",
    )  # fmt: skip


def _turned(model: ArticulationModel, q: np.ndarray, values: np.ndarray, *, into_body: bool) -> np.ndarray:
    result = np.array(values, float)
    for joint in model.joints:
        if joint.kind in ("free", "ball"):
            at = model.coordinate(joint.name) + COORDINATES[joint.kind] - 4
            end = model.dof(joint.name) + DOFS[joint.kind]
            matrix = np.zeros(9)
            mujoco.mju_quat2Mat(matrix, _wxyz(q[at : at + 4]))
            rotation = matrix.reshape(3, 3)
            result[end - 3 : end] = (rotation.T if into_body else rotation) @ result[end - 3 : end]
    return result


def _add(parent, tag, **attributes):
    return ElementTree.SubElement(parent, tag, attributes)


def _text(values):
    return " ".join(f"{float(value):.17g}" for value in values)


def _wxyz(quaternion):
    return np.roll(np.asarray(quaternion, float), 1)
