"""Rows 16 and 49 of the fault table: where bundles may come from, and what may stand there."""

from __future__ import annotations

import os
import shutil
import threading
import time

import pytest

from policy_runner.allowed import AllowedBundles
from policy_runner.bundle import BundleError, read_bundle
from policy_runner.settings import RunnerSettings


@pytest.fixture(scope="module")
def whole(bundles, tmp_path_factory):
    return bundles.write(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def policies(whole, tmp_path):
    """A folder of policies with one in it, and another one outside."""
    (tmp_path / "policies").mkdir()
    shutil.copytree(whole, tmp_path / "policies" / "good")
    shutil.copytree(whole, tmp_path / "elsewhere")
    return tmp_path / "policies"


def allowed(*folders, **settings) -> AllowedBundles:
    return AllowedBundles.by(RunnerSettings(policy_dirs=tuple(map(str, folders)), **settings))


def refusal(path, allowed) -> str:
    with pytest.raises(BundleError) as caught:
        read_bundle(path, allowed)
    return str(caught.value)


def test_row_49_a_policy_is_taken_from_inside_an_allowed_folder_and_from_no_other(policies):
    assert read_bundle(policies / "good", allowed(policies)).contract.task == "rolling_flat"
    assert read_bundle(policies / "good", allowed("/nowhere", policies / "good"))
    elsewhere = policies.parent / "elsewhere"
    message = refusal(elsewhere, allowed(policies, "/opt"))
    expected = f"{elsewhere}: expected a folder inside policy_dirs ['{policies}', '/opt'], found one outside"
    assert message == expected


@pytest.mark.parametrize(
    "path",
    [
        "policies/../elsewhere",
        "policies/good/../../elsewhere",
        "policies/link_out",
        "policies/link_to_parent/elsewhere",
        "policies_of_another",
        "/etc",
        "/",
        "",
        "..",
        "policies/\0good",
        "policies/" + "x" * 5000,
        "policies/loop",
    ],
)
def test_row_49_no_way_of_writing_a_path_leads_out_of_the_allowed_folders(policies, path, monkeypatch):
    parent = policies.parent
    (policies / "link_out").symlink_to(parent / "elsewhere")
    (policies / "link_to_parent").symlink_to(parent)
    (policies / "loop").symlink_to(policies / "loop")
    shutil.copytree(parent / "elsewhere", parent / "policies_of_another")
    monkeypatch.chdir(parent)
    assert refusal(path, allowed(policies))


def test_row_49_nothing_is_learned_of_what_lies_outside(policies, tmp_path):
    """The answer is the same for what exists and for what does not."""
    (tmp_path / "file").write_text("secret")
    answers = {refusal(tmp_path / name, allowed(policies)).replace(name, "X") for name in ("file", "none")}
    assert len(answers) == 1


def test_row_49_nothing_is_learned_of_where_links_lead_or_of_where_the_runner_runs(policies, monkeypatch):
    (policies / "link").symlink_to(policies.parent / "elsewhere")
    assert "elsewhere" not in refusal(policies / "link", allowed(policies))
    monkeypatch.chdir(policies.parent)
    assert refusal("elsewhere", allowed("/opt")).startswith("elsewhere: expected a folder inside policy_dirs")


def test_row_49_a_link_that_is_exchanged_at_the_last_moment_does_not_help(policies, monkeypatch):
    link = policies / "current"
    link.symlink_to(policies / "good")
    rules = allowed(policies)
    look = AllowedBundles.folder_problem

    def look_then_exchange(self, folder):
        problem = look(self, folder)
        link.unlink()
        link.symlink_to(policies.parent / "elsewhere")
        return problem

    monkeypatch.setattr(AllowedBundles, "folder_problem", look_then_exchange)
    assert "found one outside" in refusal(link, rules)


def test_links_among_the_allowed_folders_are_followed(policies):
    (policies / "current").symlink_to("good")
    assert read_bundle(policies / "current", allowed(policies))
    alias = policies.parent / "alias"
    alias.symlink_to(policies)
    assert read_bundle(policies / "good", allowed(alias))
    assert read_bundle(alias / "good", allowed(policies))


def test_row_49_without_policy_dirs_only_the_folder_of_the_first_policy_is_allowed(policies):
    (policies / "other").mkdir()
    rules = AllowedBundles.by(RunnerSettings(policy=str(policies / "good")))
    assert read_bundle(policies / "good", rules)
    assert "found one outside" in refusal(policies / "other", rules)
    nothing = AllowedBundles.by(RunnerSettings())
    assert "inside policy_dirs []" in refusal(policies / "good", nothing)


def test_row_49_a_list_of_digests_admits_those_bundles_alone(policies, bundles):
    digest = read_bundle(policies / "good").digest
    assert read_bundle(policies / "good", allowed(policies, policy_sha256=(digest.upper(),)))
    other = bundles.write(policies / "other", bundles.contract(policy_name="other"))
    found = read_bundle(other).digest
    message = refusal(other, allowed(policies, policy_sha256=(digest,)))
    assert message == f"bundle.json: sha256: expected one of policy_sha256 ['{digest}'], found {found}"


@pytest.mark.parametrize("place", ["bundle", "file"])
@pytest.mark.parametrize("kind", ["file", "folder", "pipe", "socket", "dangling link", "loop", "device"])
def test_row_16_what_is_no_bundle_and_no_plain_file_is_refused_and_never_waited_for(
    policies, place, kind, monkeypatch
):
    monkeypatch.chdir(policies)  # names of sockets must be short
    path = policies / "thing" if place == "bundle" else policies / "good" / "policy.onnx"
    if place == "file":
        path.unlink()
    if kind == "socket":
        import socket

        socket.socket(socket.AF_UNIX).bind(os.path.relpath(path))
    else:
        make = {
            "file": lambda: path.write_bytes(b"x" * 100),
            "folder": path.mkdir,
            "pipe": lambda: os.mkfifo(path),
            "dangling link": lambda: path.symlink_to("gone"),
            "loop": lambda: path.symlink_to(path.name),
            "device": lambda: path.symlink_to("/dev/zero"),
        }
        make[kind]()
    answers: list[str] = []
    reader = threading.Thread(
        target=lambda: answers.append(refusal(path if place == "bundle" else path.parent, allowed(policies))),
        daemon=True,
    )
    reader.start()
    give_up_s = time.monotonic() + 60.0
    while not answers:
        assert reader.is_alive() or answers
        assert time.monotonic() < give_up_s
        time.sleep(0.005)


def test_row_16_files_that_are_too_large_are_refused_unread(policies):
    with open(policies / "good" / "policy.onnx", "wb") as file:
        file.truncate(1 << 40)  # a hole, which takes no room on the disk
    assert "policy.onnx: expected at most 67108864 bytes, found 1099511627776" in refusal(
        policies / "good", allowed(policies)
    )


def test_row_22_all_files_are_read_out_of_one_folder_even_if_it_is_exchanged_meanwhile(policies, monkeypatch):
    """Half of one bundle and half of another are never put together; the hashes would tell, too."""
    good, other = policies / "good", policies / "other"
    (policies.parent / "elsewhere").rename(other)
    (other / "actor.onnx").write_bytes(b"not what was hashed")
    look = AllowedBundles.digest_problem

    def look_then_exchange(self, digest):  # the manifest has been read, the models have not
        good.rename(policies / "old")
        other.rename(good)
        return look(self, digest)

    monkeypatch.setattr(AllowedBundles, "digest_problem", look_then_exchange)
    assert read_bundle(good, allowed(policies)).files["actor.onnx"] != b"not what was hashed"


def test_a_disk_that_is_gone_is_a_refusal(policies, monkeypatch):
    def fail(*_, **__):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fail)
        message = refusal(policies / "good", allowed(policies))
    assert message == "bundle.json: cannot be read: Input/output error"
