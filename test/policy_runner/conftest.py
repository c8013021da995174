"""Small contracts and bundles; the network is tanh(obs @ W + mean(cloud) @ V), so NumPy can be its oracle."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from policy_runner.contract import ActionSpec, ObsTerm, PointCloudSpec, PolicyContract

NUM_POINTS = 8


def make_contract(**changes) -> PolicyContract:
    contract = PolicyContract(
        policy_name="roller",
        task="rolling_flat",
        control_dt_s=1.0 / 60.0,
        obs_terms=(
            ObsTerm(name="joint_q", kind="joint_position", shape=(3,), unit="rad or m"),
            ObsTerm(name="com_q", kind="cloud_mean", shape=(3,), unit="m", frame="world"),
            ObsTerm(name="particle_q", kind="cloud", shape=(NUM_POINTS, 3), unit="m", frame="world"),
        ),
        action=ActionSpec(
            joint_names=("pin_x", "pin_y", "pin_yaw"),
            mode="delta_position",
            scale=(0.01, 0.01, 0.05),
            lower=(0.1, 0.1, -2.0),
            upper=(0.9, 0.4, 2.0),
            max_velocity=(0.6, 0.6, 3.0),
        ),
        default_joint_pos=(0.5, 0.3, 0.0),
        point_cloud=PointCloudSpec(
            frame="world", crop_min=(0.0, 0.0, 0.0), crop_max=(1.0, 1.0, 1.0), num_points=NUM_POINTS
        ),
        train={"algorithm": "none", "seed": 1},
    )
    return replace(contract, **changes)


def weights(contract: PolicyContract, seed: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    joints = contract.action.size
    w = {"W": rng.normal(size=(contract.state_size, joints)).astype(np.float32)}
    if contract.cloud_terms:
        w["V"] = rng.normal(size=(3, joints)).astype(np.float32)
    return w


def oracle(contract: PolicyContract, w: dict[str, np.ndarray], inputs: dict[str, np.ndarray]) -> np.ndarray:
    """float64 actions (K, d) of K observations."""
    z = inputs["obs"].astype(np.float64) @ w["W"]
    for term in contract.cloud_terms:
        z = z + inputs[term.name].astype(np.float64).mean(axis=1) @ w["V"]
    return np.tanh(z)


def make_model(contract: PolicyContract, w: dict[str, np.ndarray]) -> onnx.ModelProto:
    joints = contract.action.size
    inputs = [helper.make_tensor_value_info("obs", TensorProto.FLOAT, [1, contract.state_size])]
    nodes = [helper.make_node("MatMul", ["obs", "W"], ["z"])]
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in w.items()]
    z = "z"
    for term in contract.cloud_terms:
        inputs.append(helper.make_tensor_value_info(term.name, TensorProto.FLOAT, [1, *term.shape]))
        tensors.append(onnx.numpy_helper.from_array(np.array([1], np.int64), "points_axis"))
        nodes += [
            helper.make_node("ReduceMean", [term.name, "points_axis"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "V"], ["z_cloud"]),
            helper.make_node("Add", ["z", "z_cloud"], ["z_all"]),
        ]
        z = "z_all"
    nodes.append(helper.make_node("Tanh", [z], ["actions"]))
    outputs = [helper.make_tensor_value_info("actions", TensorProto.FLOAT, [1, joints])]
    graph = helper.make_graph(nodes, "policy", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {"contract": contract.to_json()})
    return model


def make_golden(contract: PolicyContract, w: dict[str, np.ndarray], count: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    golden = {"obs": rng.normal(size=(count, contract.state_size)).astype(np.float32)}
    for term in contract.cloud_terms:
        golden[term.name] = rng.normal(size=(count, *term.shape)).astype(np.float32)
    return golden | {"actions": oracle(contract, w, golden).astype(np.float32)}


def write_bundle(
    folder: Path,
    contract: PolicyContract | None = None,
    *,
    w: dict[str, np.ndarray] | None = None,
    change_models=None,
    golden: dict[str, np.ndarray] | None = None,
    manifest_contract: PolicyContract | None = None,
) -> Path:
    """Write a bundle whose hashes are right, whatever else is wrong with it.

    change_models: called with (name, model) before a model is written.
    """
    contract = contract or make_contract()
    w = w or weights(contract)
    folder.mkdir(parents=True, exist_ok=True)
    names = ["policy.onnx", "actor.onnx", *(["encoder.onnx"] if contract.cloud_terms else [])]
    for name in names:
        model = make_model(contract, w)
        if change_models is not None:
            change_models(name, model)
        (folder / name).write_bytes(model.SerializeToString())
    np.savez(folder / "golden.npz", **(golden if golden is not None else make_golden(contract, w)))
    sign(folder, manifest_contract or contract)
    return folder


def sign(folder: Path, contract: PolicyContract | None = None) -> None:
    """Write a manifest with the hashes of the files as they are."""
    contract = contract or make_contract()
    names = [path.name for path in folder.iterdir() if path.suffix in (".onnx", ".npz")]
    manifest = {
        "contract": json.loads(contract.to_json()),
        "files": {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names},
    }
    (folder / "bundle.json").write_text(json.dumps(manifest))


class Bundles:
    """The functions above as one object, since test modules cannot import a conftest."""

    contract = staticmethod(make_contract)
    weights = staticmethod(weights)
    oracle = staticmethod(oracle)
    model = staticmethod(make_model)
    golden = staticmethod(make_golden)
    write = staticmethod(write_bundle)
    sign = staticmethod(sign)


@pytest.fixture(scope="session")
def bundles() -> type[Bundles]:
    return Bundles


@pytest.fixture(scope="session")
def ros_context():
    from robot import ros  # here: most tests of the runner need no ROS

    with ros() as context:
        yield context


@pytest.fixture(scope="session")
def bundle(bundles, tmp_path_factory):
    return bundles.write(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def start(ros_context, bundles, bundle, tmp_path):
    """Start a runner with these parameters in a process of its own, with a robot beside it."""
    from robot import Robot

    log, robots = tmp_path / "log", []

    def start_robot(**parameters):
        robots.append(Robot(ros_context, bundles, log, **({"policy": bundle} | parameters)))
        return robots[-1]

    yield start_robot
    for robot in robots:
        robot.close()
    print(log.read_text() if log.exists() else "")
