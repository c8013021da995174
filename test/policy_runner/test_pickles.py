"""Row 24 of the fault table: a pickle is a program. None is ever run, whatever it is called and wherever it is put."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from policy_runner import inspect_bundle
from policy_runner.bundle import BundleError, load_bundle
from policy_runner.vet import VetLimits, load_vetted

ROOT = Path(__file__).parents[2]
PATIENT = VetLimits(wall_s=120.0, cpu_s=60)


class Payload:
    """Unpickled, it creates a file."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self._canary),)


@pytest.fixture
def canary(tmp_path):
    return tmp_path / "the payload ran"


@pytest.fixture
def loaded_gun(canary):
    return pickle.dumps(Payload(canary))


def test_the_canary_would_sing(canary, loaded_gun):
    pickle.loads(loaded_gun)
    assert canary.exists()


def as_checkpoint(data: bytes) -> bytes:
    """The pickle as `torch.save` lays it out."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def object_array(data: bytes) -> bytes:
    """An array file of objects, which NumPy would unpickle if it were allowed to."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|O", "fortran_order": False, "shape": (1, 3)})
    return buffer.getvalue() + data


def as_golden(data: bytes, inside: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("obs", "particle_q", "actions"):
            archive.writestr(f"{name}.npy", object_array(data) if inside == "array" else data)
    return buffer.getvalue()


@pytest.mark.parametrize("check", [load_bundle, lambda folder: load_vetted(folder, PATIENT)])
@pytest.mark.parametrize("name", ["policy.onnx", "actor.onnx", "golden.npz", "bundle.json"])
def test_row_24_a_pickle_in_place_of_a_file_of_a_bundle_is_refused(
    bundles, tmp_path, canary, loaded_gun, name, check
):
    folder = bundles.write(tmp_path / "b")
    for data in (loaded_gun, as_checkpoint(loaded_gun)):
        (folder / name).write_bytes(data)
        if name != "bundle.json":
            bundles.sign(folder)
        with pytest.raises(BundleError, match=f"^{name}: "):
            check(folder)
    assert not canary.exists()


@pytest.mark.parametrize("check", [load_bundle, lambda folder: load_vetted(folder, PATIENT)])
@pytest.mark.parametrize("inside", ["array", "entry"])
def test_row_24_a_pickle_among_the_golden_pairs_is_refused(
    bundles, tmp_path, canary, loaded_gun, inside, check
):
    folder = bundles.write(tmp_path / "b")
    (folder / "golden.npz").write_bytes(as_golden(loaded_gun, inside))
    bundles.sign(folder)
    with pytest.raises(
        BundleError, match=r"^golden.npz: (not an archive of plain arrays|expected|obs|actions)"
    ):
        check(folder)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["policy.pt", "policy.pkl", "policy.pth", "policy.onnx"])
def test_row_24_a_pickle_in_place_of_a_bundle_is_refused_in_words(tmp_path, canary, loaded_gun, name, capsys):
    path = tmp_path / name
    path.write_bytes(as_checkpoint(loaded_gun))
    with pytest.raises(BundleError, match=r"expected a folder with bundle.json, found a file"):
        load_vetted(path)
    assert inspect_bundle.main([str(path)]) == 1
    assert "expected a folder with bundle.json, found a file" in capsys.readouterr().err
    assert not canary.exists()


def test_row_24_no_source_of_the_runner_asks_for_pickles():
    sources = [path.read_text() for path in (ROOT / "policy_runner").rglob("*.py")]
    assert len(sources) > 20
    assert not any("allow_pickle=True" in source or "import pickle" in source for source in sources)


def test_row_24_a_good_bundle_is_loaded_without_unpickling_anything(bundles, tmp_path):
    folder = bundles.write(tmp_path / "b")
    program = (
        "import pickle, sys\n"
        "def refuse(*_, **__): raise SystemExit('unpickled')\n"
        "pickle.load = pickle.loads = pickle.Unpickler = pickle._Unpickler = refuse\n"
        "from policy_runner.bundle import load_bundle\n"
        "print(load_bundle(sys.argv[1]).contract.task, 'torch' in sys.modules)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.stdout.split() == ["rolling_flat", "False"], ended.stderr
