"""Export a trained policy as a bundle, in the format that `policy_runner.bundle` describes and checks.

The graph goes from observations, as the env gives them, to actions in [-1, 1]: normaliser, encoder, head and
tanh are inside, sampling and critics are not. `policy.onnx` is `encoder.onnx` followed by `actor.onnx`. Tasks
without a cloud have no encoder, and their `actor.onnx` takes the observation as `policy.onnx` does.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime import InferenceSession
from torch import Generator, Tensor, nn

from policy_runner.bundle import (
    ACTIONS_OUTPUT,
    ACTOR,
    ENCODER,
    GOLDEN,
    MANIFEST,
    METADATA_KEY,
    OBS_INPUT,
    OPSET,
    POLICY,
    BundleError,
    load_bundle,
)
from policy_runner.contract import PolicyContract
from sapo_learner.distributions import standard_normal
from sapo_learner.network_input import NetworkInput, ObsLayout
from sapo_learner.policy import GaussianPolicy
from sapo_learner.vec_env import Obs

FEATURES = "features"
"""Output of `encoder.onnx` and input of `actor.onnx`, (1, size)."""
GOLDEN_PAIRS = 8
PARITY_OBSERVATIONS = 1000
PARITY_TOLERANCE = 1e-5
PERTURBATION_STDS = 3.0


class ExportError(RuntimeError):
    """No bundle was written: contract, policy and exported model do not agree, or the folder is taken."""


def export_bundle(
    policy: GaussianPolicy, contract: PolicyContract, observations: Obs, out_dir: str | os.PathLike[str]
) -> Path:
    """Write the bundle of `policy` to the folder `out_dir` and return its path.

    observations: some that occur, at least 2, better hundreds, (K, *term.shape) by name. On these and on
    perturbed ones, 1000 or more in all, onnxruntime must give torch's actions within 1e-5; the largest
    difference is recorded in the contract as `train["onnx_difference"]`. An earlier bundle at `out_dir` is
    replaced by the whole new one, or on failure stays.

    Raises:
        ExportError: the contract describes another policy, the models differ from torch, the runner would
            refuse them, or `out_dir` cannot be written or holds something other than a bundle.
    """
    folder = Path(out_dir)
    _check_replaceable(folder)
    _check_contract(policy, contract)
    network = copy.deepcopy(_Network(policy)).cpu().requires_grad_(False).eval()
    samples = _parity_samples(policy.layout, observations)
    models = _export_models(network, _named(policy.layout, samples.map(lambda x: x[:1])))
    inputs = _named(policy.layout, samples)
    difference = _parity(network, inputs, models[POLICY])
    if not difference <= PARITY_TOLERANCE:  # so that NaN fails
        raise ExportError(
            f"{POLICY}: onnxruntime's actions differ from torch's by up to {difference:.3g} on "
            f"{len(samples.state)} observations, expected at most {PARITY_TOLERANCE:g}"
        )
    contract = replace(contract, train={**contract.train, "onnx_difference": difference})
    files = {name: _with_contract(model, contract) for name, model in models.items()}
    files[GOLDEN] = _golden_pairs(network, inputs)
    files[MANIFEST] = _manifest(contract, files)
    try:
        _write_folder(folder, files)
    except (OSError, BundleError) as error:
        raise ExportError(f"{folder}: {error}") from error
    return folder


def _check_contract(policy: GaussianPolicy, contract: PolicyContract) -> None:
    taken = [(term.name, term.shape) for term in policy.layout.terms]
    terms = [(term.name, term.shape) for term in (*contract.state_terms, *contract.cloud_terms)]
    if terms != taken:
        raise ExportError(f"contract.obs_terms: the policy takes {taken}, the contract says {terms}")
    if contract.action.size != policy.action_dim:
        raise ExportError(
            f"contract.action: policy has {policy.action_dim} actions, the contract {contract.action.size}"
        )


# ---- models ------------------------------------------------------------------------------------------------


class _Encoder(nn.Module):
    """From an observation to features."""

    def __init__(self, policy: GaussianPolicy) -> None:
        super().__init__()
        self.normalizer = policy.normalizer
        self.encoder = policy.encoder

    def forward(self, obs: Tensor, *cloud: Tensor) -> Tensor:
        return self.encoder(self.normalizer(obs), *cloud)


class _Actor(nn.Module):
    """From features to the deterministic action."""

    def __init__(self, policy: GaussianPolicy) -> None:
        super().__init__()
        self.head = policy.head

    def forward(self, features: Tensor) -> Tensor:
        return self.head(features).mode()


class _Network(nn.Module):
    """From an observation to the deterministic action."""

    def __init__(self, policy: GaussianPolicy) -> None:
        super().__init__()
        self.encoder = _Encoder(policy)
        self.actor = _Actor(policy)

    def forward(self, obs: Tensor, *cloud: Tensor) -> Tensor:
        return self.actor(self.encoder(obs, *cloud))


def _named(layout: ObsLayout, inputs: NetworkInput) -> dict[str, Tensor]:
    """Give each input of the network the name that it has in the models."""
    if layout.cloud_term is None or inputs.cloud is None:
        return {OBS_INPUT: inputs.state}
    return {OBS_INPUT: inputs.state, layout.cloud_term.name: inputs.cloud}


def _export_models(network: _Network, inputs: dict[str, Tensor]) -> dict[str, onnx.ModelProto]:
    """Export with the shapes of `inputs`, a single observation."""
    fused = _to_onnx(network, inputs, ACTIONS_OUTPUT)
    if len(inputs) == 1:
        return {POLICY: fused, ACTOR: fused}
    features = {FEATURES: network.encoder(*inputs.values())}
    return {
        POLICY: fused,
        ENCODER: _to_onnx(network.encoder, inputs, FEATURES),
        ACTOR: _to_onnx(network.actor, features, ACTIONS_OUTPUT),
    }


def _to_onnx(module: nn.Module, inputs: Mapping[str, Tensor], output: str) -> onnx.ModelProto:
    """Export with the shapes of `inputs`, all weights inside, and without traces of this machine."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    with warnings.catch_warnings():  # the exporter warns of its own deprecations and of a missing torchvision
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(
                module,
                tuple(inputs.values()),
                input_names=list(inputs),
                output_names=[output],
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        finally:
            log.setLevel(level)
    assert program is not None
    return _without_remarks(program.model_proto)


def _without_remarks(model: onnx.ModelProto) -> onnx.ModelProto:
    """Take out what an exporter notes for people: stack traces with the paths of source files, among others."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
    for part in (
        model,
        graph,
        *graph.node,
        *graph.initializer,
        *graph.value_info,
        *graph.input,
        *graph.output,
    ):
        part.ClearField("doc_string")
    return model


def _with_contract(model: onnx.ModelProto, contract: PolicyContract) -> bytes:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    onnx.helper.set_model_props(result, {METADATA_KEY: contract.to_json()})
    return result.SerializeToString(deterministic=True)


# ---- parity and golden pairs -------------------------------------------------------------------------------


def _parity_samples(layout: ObsLayout, observations: Obs) -> NetworkInput:
    """Return the observations given, followed by perturbed ones, as many at least, 1000 in all or more, on the CPU."""
    given = layout.pack({name: value.detach().cpu() for name, value in observations.items()})
    count = len(given.state)
    if count < 2:
        raise ExportError(f"observations: expected 2 or more, got {count}")
    generator = Generator().manual_seed(0)  # the same policy gives the same bundle
    repeats = max(2, -(-PARITY_OBSERVATIONS // count))

    def with_perturbed(x: Tensor) -> Tensor:
        noise = standard_normal((repeats - 1, *x.shape), generator)
        return torch.cat([x, (x + PERTURBATION_STDS * x.std(dim=0) * noise).flatten(0, 1)])

    return given.map(with_perturbed)


def _parity(network: _Network, inputs: dict[str, Tensor], model: onnx.ModelProto) -> float:
    """Return the largest difference of an action between torch, in a batch, and onnxruntime, one by one."""
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = network(*inputs.values()).numpy()
    found = [
        np.asarray(
            session.run([ACTIONS_OUTPUT], {name: x[i : i + 1].numpy() for name, x in inputs.items()})[0]
        )
        for i in range(len(expected))
    ]
    return float(np.abs(np.concatenate(found) - expected).max())


def _golden_pairs(network: _Network, inputs: dict[str, Tensor]) -> bytes:
    chosen = torch.linspace(0, len(inputs[OBS_INPUT]) - 1, GOLDEN_PAIRS).long()
    pairs = {name: x[chosen] for name, x in inputs.items()}
    pairs[ACTIONS_OUTPUT] = network(*pairs.values())
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: x.numpy() for name, x in pairs.items()})
    return buffer.getvalue()


# ---- the folder --------------------------------------------------------------------------------------------


def _manifest(contract: PolicyContract, files: Mapping[str, bytes]) -> bytes:
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return json.dumps(
        {"contract": json.loads(contract.to_json()), "files": hashes}, indent=1, allow_nan=False
    ).encode()


def _check_replaceable(folder: Path) -> None:
    if (folder / MANIFEST).is_file() or not folder.exists():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise ExportError(f"{folder}: exists and is no bundle, so it is not replaced")


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files beside `folder`, have the runner's own check pass them, then move them there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for leftover in folder.parent.glob(f".{folder.name}.*"):  # of a process that was killed meanwhile
        shutil.rmtree(leftover)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    new, old = staging / "new", staging / "old"
    try:
        new.mkdir()
        for name, data in files.items():
            (new / name).write_bytes(data)
        load_bundle(new)
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    finally:
        shutil.rmtree(staging)
