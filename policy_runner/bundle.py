"""A policy bundle: the folder that training leaves behind and that a runner takes.

    bundle.json    {"contract": {...}, "files": {name: sha256 of its bytes}}
    policy.onnx    what the runner runs: encoder and actor fused, every shape fixed
    actor.onnx     the actor alone
    encoder.onnx   the point-cloud encoder alone; only where the contract has a cloud term
    golden.npz     observations and the actions that the trained network gave for them

`policy.onnx` takes float32 `obs` [1, state_size], the contract's state terms times their scales, one after
the other, and for tasks with a cloud a second input [1, num_points, 3] under the name of the cloud term. It
gives `actions` [1, num_joints] in [-1, 1]. Every model carries the contract as JSON under the metadata key
`contract`. `golden.npz` holds the same inputs, K of them stacked, and the K expected `actions`.

A bundle is input from elsewhere and is refused, with a `BundleError`, unless all of it is as said here. This
module reads, hashes and compares; `model_check` and `golden` look into the models, and `vet` has them do so in
a process of its own.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policy_runner.allowed import AllowedBundles
from policy_runner.contract import ContractError, PolicyContract

MANIFEST = "bundle.json"
POLICY = "policy.onnx"
ACTOR = "actor.onnx"
ENCODER = "encoder.onnx"
GOLDEN = "golden.npz"

METADATA_KEY = "contract"
OBS_INPUT = "obs"
ACTIONS_OUTPUT = "actions"
OPSET = 18
GOLDEN_TOLERANCE = 1e-5
"""Largest difference between a golden action and what the runtime of this machine computes."""

MAX_MANIFEST_BYTES = 1 << 20
MAX_FILE_BYTES = 64 << 20
MAX_MESSAGE = 600
"""Characters of a refusal, parts of which come out of the bundle."""


class BundleError(ValueError):
    """A bundle is refused; the message names the file, the field, what was expected and what was found.

    It is one line that steers no terminal, whatever the bundle put into it.
    """

    def __init__(self, message: str) -> None:
        line = "".join(char if char.isprintable() else " " for char in message[: MAX_MESSAGE + 1])
        super().__init__(line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 1] + "…")


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle in memory: these bytes, and no later state of the folder, are what was hashed."""

    path: Path
    contract: PolicyContract
    manifest: bytes
    """Contents of `bundle.json`."""
    files: Mapping[str, bytes]
    """Contents of the other files by name."""

    @property
    def digest(self) -> str:
        """sha256 of the manifest. It holds the hashes of all files, so it stands for the whole bundle."""
        return hashlib.sha256(self.manifest).hexdigest()

    @property
    def policy(self) -> bytes:
        """The fused model."""
        return self.files[POLICY]


def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Read a bundle and check all of it: hashes, contract, models and golden pairs.

    The models are parsed and run in this process. A runner that takes bundles from elsewhere uses
    `vet.load_vetted`.

    Raises:
        BundleError: anything is not as the format says.
    """
    # onnx and onnxruntime take a third of a second
    from policy_runner.golden import check_golden
    from policy_runner.model_check import check_models

    bundle = read_bundle(path)
    check_models(bundle)
    check_golden(bundle)
    return bundle


def read_bundle(path: str | os.PathLike[str], allowed: AllowedBundles | None = None) -> Bundle:
    """Read every file once, compare its hash with the manifest, and parse the contract; models stay unopened.

    allowed: which bundles are taken at all; None: any. What lies elsewhere is not even looked at.

    Raises:
        BundleError: the bundle is not allowed; a file is missing, is not a plain file, is too large or has
            another hash; or the manifest or the contract in it is not as it must be.
    """
    folder = Path(path)
    if allowed is not None:
        _refuse_for(str(folder), allowed.folder_problem(_resolved(folder)))
    descriptor = _open_folder(folder)
    try:
        if allowed is not None:  # once more, of what was opened: links may have been exchanged meanwhile
            found = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            _refuse_for(str(folder), allowed.folder_problem(found))
        manifest = _read_plain_file(descriptor, MANIFEST, MAX_MANIFEST_BYTES)
        if allowed is not None:
            _refuse_for(MANIFEST, allowed.digest_problem(hashlib.sha256(manifest).hexdigest()))
        return assemble(folder, manifest, lambda name: _read_plain_file(descriptor, name, MAX_FILE_BYTES))
    finally:
        os.close(descriptor)


def assemble(path: Path, manifest: bytes, read: Callable[[str], bytes]) -> Bundle:
    """Put a bundle together from its manifest and the files that it names, each read once and hashed.

    Raises:
        BundleError: a file has another hash, or the manifest is not as it must be.
    """
    contract, hashes = _parse_manifest(manifest)
    files = {}
    for name, expected in hashes.items():
        files[name] = read(name)
        found = hashlib.sha256(files[name]).hexdigest()
        if found != expected:
            raise BundleError(f"{name}: sha256: expected {expected}, found {found}")
    return Bundle(path=path, contract=contract, manifest=manifest, files=files)


def file_names(contract: PolicyContract) -> tuple[str, ...]:
    """Return the files that a bundle with this contract has, without the manifest."""
    return (POLICY, ACTOR, GOLDEN, *((ENCODER,) if contract.cloud_terms else ()))


def input_shapes(contract: PolicyContract) -> dict[str, tuple[int, ...]]:
    """Return the inputs of `policy.onnx` by name, without the leading batch dimension of 1."""
    shapes: dict[str, tuple[int, ...]] = {OBS_INPUT: (contract.state_size,)} if contract.state_terms else {}
    return shapes | {term.name: term.shape for term in contract.cloud_terms}


def contract_difference(expected: PolicyContract, found: PolicyContract) -> str | None:
    """Name the first field that differs, as `action.joint_names[1]: expected ..., found ...`, or None."""
    return _difference(json.loads(expected.to_json()), json.loads(found.to_json()))


def _parse_manifest(data: bytes) -> tuple[PolicyContract, dict[str, str]]:
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{MANIFEST}: not valid JSON: {error}") from error
    if not isinstance(manifest, dict) or set(manifest) != {"contract", "files"}:
        found = sorted(manifest) if isinstance(manifest, dict) else type(manifest).__name__
        raise BundleError(f"{MANIFEST}: expected an object with fields ['contract', 'files'], found {found}")
    try:
        contract = PolicyContract.from_json(json.dumps(manifest["contract"]))
    except (ContractError, RecursionError) as error:
        raise BundleError(f"{MANIFEST}: contract: {error}") from error
    hashes = manifest["files"]
    expected = sorted(file_names(contract))
    if not isinstance(hashes, dict) or sorted(hashes) != expected:
        found = sorted(hashes) if isinstance(hashes, dict) else type(hashes).__name__
        raise BundleError(f"{MANIFEST}: files: expected {expected}, found {found}")
    return contract, hashes


def _refuse_for(what: str, problem: str) -> None:
    if problem:
        raise BundleError(f"{what}: {problem}")


def _resolved(folder: Path) -> Path:
    try:
        return Path(os.path.realpath(folder))
    except ValueError as error:
        raise BundleError(f"{folder}: not a path: {error}") from error


def _open_folder(folder: Path) -> int:
    """All files are read through this descriptor: out of one folder, even if its name comes to mean another."""
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        found = {errno.ENOENT: "nothing", errno.ENOTDIR: "a file"}.get(error.errno or 0, error.strerror)
        raise BundleError(f"{folder}: expected a folder with {MANIFEST}, found {found}") from error
    except ValueError as error:
        raise BundleError(f"{folder}: not a path: {error}") from error


def _read_plain_file(folder: int, name: str, max_bytes: int) -> bytes:
    try:
        # O_NONBLOCK: opening a named pipe must not wait for its writer
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(name, flags, dir_fd=folder), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BundleError(f"{name}: expected a plain file")
            if status.st_size > max_bytes:
                raise BundleError(f"{name}: expected at most {max_bytes} bytes, found {status.st_size}")
            return file.read(max_bytes)
    except OSError as error:
        raise BundleError(f"{name}: cannot be read: {error.strerror}") from error


def _difference(expected: Any, found: Any, where: str = "") -> str | None:
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys()):
            inner = f"{where}.{key}" if where else key
            if key not in expected or key not in found:
                return f"{inner}: {'unexpected' if key in found else 'missing'}"
            if difference := _difference(expected[key], found[key], inner):
                return difference
        return None
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        differences = (_difference(a, b, f"{where}[{index}]") for index, (a, b) in pairs)
        return next((difference for difference in differences if difference), None)
    return None if expected == found else f"{where}: expected {expected!r}, found {found!r}"
