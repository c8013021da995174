"""The package as a whole: what it declares is what it is. tools/check_packaging.sh proves the installing."""

import ast
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("rewarped_sim", "sapo_learner", "policy_runner")
NODES = ("train_node", "sim_node", "policy_runner")
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))
INTERFACES = sorted(path for path in (ROOT / "msg").rglob("*") if path.suffix in (".msg", ".srv", ".action"))

INTERFACE_MODULES = {"rewarped_msgs"}  # built from this repository
OPTIONAL_ROS = {"tf2_msgs"}  # not among the wheels; used only where it is installed
OPTIONAL = {"matplotlib"}  # training needs it; on a robot, a replay is drawn only where it is installed


def python_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(path: Path) -> Iterator[str]:
    """Yield the first part of the name of every module that the file imports, wherever it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.split(".")[0]


def is_ros(module: str) -> bool:
    return module.endswith(("_msgs", "_srvs", "_interfaces")) or module in ("rclpy", "launch", "launch_ros")


def requirements(*names: str) -> set[str]:
    """Return the names of the distributions in requirements/<name>.txt."""
    texts = [(ROOT / "requirements" / f"{name}.txt").read_text() for name in names]
    lines = [line for text in texts for line in text.splitlines() if line and not line.startswith("#")]
    return {re.split(r"[<>=!~;\[ ]", line)[0] for line in lines}


def modules_of(distribution: str) -> set[str]:
    """Return the top-level modules that an installed distribution brings; none if this platform has another."""
    try:
        files = metadata.distribution(distribution).files or ()
    except metadata.PackageNotFoundError:
        return set()
    return {file.parts[0].removesuffix(".py") for file in files}


def run(code: str) -> str:
    """Run Python code in a process of its own, away from the checkout, and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_all_versions_are_the_same():
    manifests = [
        ElementTree.parse(path).findtext("version")
        for path in (ROOT / "package.xml", ROOT / "msg/package.xml")
    ]
    assert set(manifests) == {metadata.version("rewarped_sim")}


def test_both_manifests_are_of_format_3_and_name_a_licence_that_is_there():
    for path in (ROOT / "package.xml", ROOT / "msg/package.xml"):
        package = ElementTree.parse(path).getroot()
        assert package.get("format") == "3"
        assert package.findtext("license") == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_every_ros_package_that_is_imported_is_declared():
    declared = {element.text for element in ElementTree.parse(ROOT / "package.xml").iter("exec_depend")}
    files = [*python_files(*PACKAGES), *LAUNCH_FILES]
    used = {module for path in files for module in imported(path) if is_ros(module)}
    assert used - INTERFACE_MODULES - OPTIONAL_ROS <= declared
    assert "rclpy" in used  # else the search itself is at fault


@pytest.mark.parametrize(
    ("packages", "files"),
    [(("policy_runner",), ("runner",)), (("rewarped_sim", "sapo_learner"), ("runner", "train", "import"))],
)
def test_every_python_package_that_is_imported_is_required(packages, files):
    used = {
        module
        for path in python_files(*packages)
        for module in imported(path)
        if module not in sys.stdlib_module_names and module not in PACKAGES and not is_ros(module)
    }
    required = {module for name in requirements(*files) for module in modules_of(name)}
    assert used - required - (OPTIONAL if packages == ("policy_runner",) else set()) == set()
    assert "numpy" in used


def test_torch_is_the_same_version_wherever_it_is_named():
    named = subprocess.run(
        ["git", "grep", "-hoE", "torch==[0-9.]+"], cwd=ROOT, capture_output=True, text=True
    )
    assert set(named.stdout.split()) == {"torch==2.13.0"}


def test_every_console_script_leads_to_a_function():
    scripts = metadata.distribution("rewarped_sim").entry_points.select(group="console_scripts")
    assert {script.name for script in scripts} == {*NODES, "rewarped_train"}
    for script in scripts:
        assert callable(script.load())


@pytest.mark.parametrize("node", NODES)
def test_nodes_are_where_ros2_run_and_launch_look_for_them(node):
    script = Path(sys.prefix, "lib", "rewarped_sim", node)
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize(
    "module",
    [
        "rewarped_sim.nodes.train_node",
        "rewarped_sim.nodes.sim_node",
        "rewarped_sim.train",
        "policy_runner.nodes.runner",
    ],
)
def test_importing_an_entry_point_starts_nothing(module):
    found = run(
        f"import threading, {module}, rclpy, warp\n"
        "print(rclpy.ok(), warp._src.context.runtime, threading.active_count())"
    )
    assert found == "False None 1"


def test_the_runner_loads_neither_torch_nor_warp_nor_the_other_packages():
    loaded = run("import sys, policy_runner.nodes.runner; print(*sys.modules)").split()
    assert "rclpy" in loaded
    assert not {"torch", "warp", "rewarped_sim", "sapo_learner"} & set(loaded)


@pytest.mark.parametrize("path", INTERFACES, ids=lambda path: path.name)
def test_every_field_of_every_interface_is_explained(path):
    fields = [
        line for line in path.read_text().splitlines() if line.strip() and not line.startswith(("#", "---"))
    ]
    assert fields
    for field in fields:
        named_constant = re.match(r"uint8 [A-Z_]+ = \d+", field)
        assert "#" in field or named_constant, f"{path.name}: no comment: {field}"
        kind, _, comment = field.split(maxsplit=1)[0], *field.partition("#")[1:]
        if kind.startswith(("float", "uint32", "uint64")) and "seed" not in field:
            assert re.search(r"\[.+\]", comment), f"{path.name}: no unit: {field}"


def test_the_installed_interfaces_are_those_of_this_checkout():
    from rewarped_msgs.msg import TrainingStatus

    text = (ROOT / "msg" / "TrainingStatus.msg").read_text()
    written = re.findall(r"^[a-z]\S+ ([a-z_]+) ", text, re.M)
    assert list(TrainingStatus.get_fields_and_field_types()) == written


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_every_argument_of_every_launch_file_is_described(path):
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tools" / "ros2_lite")}
    done = subprocess.run(
        [sys.executable, "-c", "from ros2_lite.cli import main; main()", "launch", path, "--show-args"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "no description given" not in done.stdout
    described = bool(re.search(r"^    '\w+':", done.stdout, re.M))
    assert described != (path.name == "transport.launch.py")  # which is there to be included, and takes none


def test_there_are_launch_files_for_training_playing_and_deploying():
    names = {path.name for path in LAUNCH_FILES}
    assert {"train.launch.py", "play.launch.py", "deploy.launch.py"} <= names


def test_every_target_of_the_makefile_is_explained():
    text = (ROOT / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (.*)$", text, re.M)[1].split())
    explained = set(re.findall(r"^([a-z]+):.*## \S", text, re.M))
    assert targets == explained
    assert {"train", "test", "lint", "bench", "help"} <= targets
