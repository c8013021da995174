import getpass
import json
import os
import re
import socket
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from point_mass import CLOUD, PointMass

import sapo_learner.export
from policy_runner.bundle import BundleError, load_bundle
from policy_runner.contract import PolicyContract
from sapo_learner import Sapo, SapoConfig
from sapo_learner.export import ExportError, export_bundle

CONFIG = SapoConfig(horizon=8, actor_hidden=(32,), critic_hidden=(16,), critic_passes=1, num_minibatches=1)


@pytest.fixture(scope="module", params=[False, True], ids=["flat", "cloud"])
def exported(request, tmp_path_factory):
    env = PointMass(num_envs=32, with_cloud=request.param)
    sapo = Sapo(env, CONFIG, seed=0, planned_epochs=10)
    for _ in range(3):
        sapo.update()  # so that the normaliser is no longer the identity
    folder = tmp_path_factory.mktemp("run") / "bundle"
    path = export_bundle(sapo.policy, env.contract(), env.detach(), folder)
    assert path == folder
    return sapo.policy, folder


def new_observations(count: int):
    generator = torch.Generator().manual_seed(8)
    x, v = 3.0 * torch.randn(2, count, 1, generator=generator)
    return {"x": x, "v": v, "points": CLOUD + torch.randn(count, 1, 3, generator=generator)}


def run(path, **inputs):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, inputs)
    return output


def model_inputs(obs, with_cloud: bool, index: int):
    inputs = {"obs": np.concatenate([obs["x"][index : index + 1], obs["v"][index : index + 1]], axis=1)}
    return inputs | ({"points": obs["points"][index : index + 1].numpy()} if with_cloud else {})


def has_cloud(folder) -> bool:
    return (folder / "encoder.onnx").exists()


def test_onnxruntime_gives_torchs_actions_on_a_thousand_new_observations(exported):
    policy, folder = exported
    obs = new_observations(1000)
    expected = policy.act(obs, deterministic=True).numpy()
    session = onnxruntime.InferenceSession(str(folder / "policy.onnx"), providers=["CPUExecutionProvider"])
    found = [session.run(["actions"], model_inputs(obs, has_cloud(folder), i))[0][0] for i in range(1000)]
    assert np.abs(np.stack(found) - expected).max() <= 1e-5
    assert expected.std() > 0.1 and np.abs(expected).max() < 1.0


def test_the_runner_takes_the_bundle_and_reads_the_contract(exported):
    _, folder = exported
    bundle = load_bundle(folder)
    expected = PointMass(with_cloud=has_cloud(folder)).contract()
    assert bundle.contract.obs_terms == expected.obs_terms and bundle.contract.action == expected.action
    assert 0.0 <= bundle.contract.train["onnx_difference"] <= 1e-5


def test_encoder_and_actor_in_a_row_are_the_policy(exported):
    _, folder = exported
    obs = new_observations(5)
    for index in range(5):
        inputs = model_inputs(obs, has_cloud(folder), index)
        if has_cloud(folder):
            features = run(folder / "encoder.onnx", **inputs)
            assert features.shape == (1, 192)
            actions = run(folder / "actor.onnx", features=features)
        else:
            actions = run(folder / "actor.onnx", **inputs)
        np.testing.assert_allclose(actions, run(folder / "policy.onnx", **inputs), atol=1e-6)


def test_every_model_is_one_file_of_fixed_shape_with_the_contract_and_no_path_of_this_machine(exported):
    _, folder = exported
    for path in folder.glob("*.onnx"):
        model = onnx.load(path, load_external_data=False)
        assert not any(tensor.external_data for tensor in model.graph.initializer)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
        for value in (*model.graph.input, *model.graph.output):
            assert all(dim.dim_value > 0 for dim in value.type.tensor_type.shape.dim)
        (contract,) = [entry.value for entry in model.metadata_props if entry.key == "contract"]
        assert PolicyContract.from_json(contract) == load_bundle(folder).contract
        data = path.read_bytes()
        assert b".py" not in data and str(torch.__path__[0]).encode() not in data


def texts(message) -> list[str]:
    """Every text anywhere inside a protobuf message."""
    found = []
    for field, value in message.ListFields():
        values = [value] if isinstance(value, str | bytes) or not hasattr(value, "__len__") else value
        for inner in values:
            if field.type == field.TYPE_MESSAGE:
                found += texts(inner)
            elif field.type == field.TYPE_STRING or (field.type == field.TYPE_BYTES and field.name == "s"):
                found.append(inner if isinstance(inner, str) else inner.decode())
    return found


def test_row_50_a_fresh_bundle_tells_nothing_of_who_and_where_it_was_made(exported):
    """No absolute path, no user, no host, in any text of any file; weights and samples are numbers."""
    _, folder = exported
    words = [(folder / "bundle.json").read_text()]
    for path in folder.glob("*.onnx"):
        words += texts(onnx.load(path, load_external_data=False))
    with zipfile.ZipFile(folder / "golden.npz") as archive:
        for entry in archive.infolist():
            words += [entry.filename, entry.comment.decode(), entry.extra.decode()]
            assert entry.date_time == (1980, 1, 1, 0, 0, 0)
    assert len(words) > 50
    private = {getpass.getuser(), socket.gethostname(), str(Path.home()), os.getcwd(), sys.prefix}
    for text in words:
        assert not private & set(re.split(r"[^\w./-]+", text)), text
        assert not re.search(r"(^|[^\w.])[/~]\w|\\\\|[A-Za-z]:\\", text), text


def test_row_50_remarks_of_the_exporter_are_taken_out_wherever_they_are():
    value = onnx.helper.make_tensor_value_info(
        "x", onnx.TensorProto.FLOAT, [1], doc_string="/home/someone/a.py"
    )
    node = onnx.helper.make_node("Identity", ["x"], ["x"], doc_string="/home/someone/b.py")
    tensor = onnx.numpy_helper.from_array(np.zeros(1), "w")
    tensor.doc_string = "/home/someone/c.py"
    graph = onnx.helper.make_graph([node], "g", [value], [value], [tensor], doc_string="/home/someone/d.py")
    model = onnx.helper.make_model(graph, doc_string="/home/someone/e.py")
    model.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/someone/f.py")
    assert sum("someone" in text for text in texts(model)) == 7
    stripped = sapo_learner.export._without_remarks(model)
    assert not [text for text in texts(stripped) if "someone" in text]


def test_golden_pairs_are_the_policys_own_actions(exported):
    policy, folder = exported
    with np.load(folder / "golden.npz") as golden:
        state = torch.tensor(golden["obs"])
        obs = {"x": state[:, :1], "v": state[:, 1:]}
        if has_cloud(folder):
            obs["points"] = torch.tensor(golden["points"])
        assert golden["actions"].shape == (8, 1)
        np.testing.assert_array_equal(golden["actions"], policy.act(obs, deterministic=True).numpy())
        assert len(np.unique(golden["actions"])) > 4


def test_the_same_policy_gives_the_same_bundle_and_replaces_the_old_one(exported, tmp_path):
    policy, folder = exported
    env = PointMass(num_envs=32, with_cloud=has_cloud(folder))
    manifests = []
    for _ in range(2):
        export_bundle(policy, env.contract(), env.detach(), tmp_path / "bundle")
        manifests.append(json.loads((tmp_path / "bundle" / "bundle.json").read_text()))
    assert manifests[0]["contract"] == manifests[1]["contract"]
    assert manifests[0]["files"]["policy.onnx"] == manifests[1]["files"]["policy.onnx"]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def flat_policy():
    env = PointMass(num_envs=4)
    return env, Sapo(env, CONFIG, seed=0, planned_epochs=10).policy


def test_models_that_differ_from_torch_are_not_exported(tmp_path, monkeypatch):
    env, policy = flat_policy()
    monkeypatch.setattr(sapo_learner.export, "PARITY_TOLERANCE", 0.0)
    with pytest.raises(
        ExportError, match=r"policy.onnx: .* differ from torch's by up to \d.* on 1000 observations"
    ):
        export_bundle(policy, env.contract(), env.detach(), tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_many_observations_are_tried_perturbed_too(tmp_path, monkeypatch):
    env, policy = flat_policy()
    monkeypatch.setattr(sapo_learner.export, "PARITY_TOLERANCE", 0.0)
    with pytest.raises(ExportError, match="on 2400 observations"):
        export_bundle(policy, env.contract(), new_observations(1200), tmp_path / "bundle")


def test_a_policy_that_gives_nan_is_not_exported(tmp_path):
    env, policy = flat_policy()
    policy.head.mean.bias.data.fill_(float("nan"))
    with pytest.raises(ExportError, match="differ from torch's by up to nan"):
        export_bundle(policy, env.contract(), env.detach(), tmp_path / "bundle")


def test_a_contract_of_another_policy_is_refused(tmp_path):
    env, policy = flat_policy()
    with pytest.raises(ExportError, match=r"contract.obs_terms: the policy takes .*contract says .*points"):
        export_bundle(policy, PointMass(with_cloud=True).contract(), env.detach(), tmp_path / "bundle")


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path):
    env, policy = flat_policy()
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ExportError, match="is no bundle, so it is not replaced"):
        export_bundle(policy, env.contract(), env.detach(), tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("failure", [BundleError("golden.npz: refused"), OSError("No space left on device")])
def test_a_bundle_that_fails_at_the_end_leaves_the_earlier_one(tmp_path, monkeypatch, failure):
    env, policy = flat_policy()
    folder = export_bundle(policy, env.contract(), env.detach(), tmp_path / "bundle")
    before = (folder / "bundle.json").read_bytes()
    policy.head.mean.bias.data.fill_(0.5)

    def refuse(path):
        raise failure

    monkeypatch.setattr(sapo_learner.export, "load_bundle", refuse)
    with pytest.raises(ExportError, match=str(failure)):
        export_bundle(policy, env.contract(), env.detach(), folder)
    assert (folder / "bundle.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
