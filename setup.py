"""Build the ROS package rewarped_sim, for `colcon build` and for `pip install [-e] .` alike.

Three things go beyond an ordinary setup.py, because a ROS package of type ament_python cannot do them:

- the interfaces in msg/ are built with CMake and installed into the same prefix, as package rewarped_msgs;
- launch files, configuration and the ament marker are installed with editable installs too;
- `lib/rewarped_sim/<node>` scripts are written, which is where `ros2 run` and launch look for nodes.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Distribution, find_packages, setup
from setuptools.command.develop import develop

# isort: split
from distutils.command.install_data import (
    install_data,
)  # Python 3.12 has it through setuptools, imported above

PACKAGE = "rewarped_sim"
INTERFACES = "rewarped_msgs"
PACKAGE_MARKERS = Path("share/ament_index/resource_index/packages")

ROOT = Path(__file__).resolve().parent
PYTHON = Path(sys.executable)
PYTHON_PREFIX = PYTHON.parent.parent  # not sys.prefix, which colcon redirects to the install prefix

NODES = {
    "policy_runner": "policy_runner.nodes.runner:main",
    "sim_node": "rewarped_sim.nodes.sim_node:main",
    "train_node": "rewarped_sim.nodes.train_node:main",
}
COMMANDS = {"rewarped_train": "rewarped_sim.train:main"}

NODE_SCRIPT = """\
#!/usr/bin/env python3
import sys

from {module} import {function}

sys.exit({function}())
"""


def requirements(name: str) -> list[str]:
    """Return the requirements listed in requirements/<name>.txt."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def files_to_install(folder: str) -> list[tuple[str, list[str]]]:
    """Return (destination, files) for `folder` and every folder below it; the files keep their places."""
    places: dict[Path, list[str]] = {}
    for path in sorted((ROOT / folder).rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            name = path.relative_to(ROOT)
            places.setdefault(Path("share", PACKAGE, name.parent), []).append(str(name))
    return [(str(place), names) for place, names in places.items()]


def interfaces_in_another_prefix(prefix: Path) -> bool:
    """Whether the same workspace or an underlay already offers the interfaces as a package of their own."""
    own = {os.path.realpath(path) for path in (prefix, PYTHON_PREFIX)}
    others = [path for path in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if path]
    return any(
        os.path.realpath(path) not in own and (path / PACKAGE_MARKERS / INTERFACES).exists()
        for path in map(Path, others)
    )


def build_environment() -> dict[str, str]:
    """Return the environment for CMake: this interpreter's prefix is searched, pip's build overlay is not."""
    environment = dict(os.environ)
    environment["PATH"] = os.pathsep.join((str(PYTHON.parent), environment.get("PATH", os.defpath)))
    if "pip-build-env" in environment.get(
        "PYTHONPATH", ""
    ):  # it would hide the generators of this interpreter
        del environment["PYTHONPATH"]
    if (PYTHON_PREFIX / PACKAGE_MARKERS).is_dir():
        for name in (
            "AMENT_PREFIX_PATH",
            "CMAKE_PREFIX_PATH",
        ):  # without the first, rosidl finds no typesupport
            paths = (environment.get(name), str(PYTHON_PREFIX))
            environment[name] = os.pathsep.join(path for path in paths if path)
    return environment


def check_build_tools(environment: dict[str, str]) -> None:
    """Stop with name and remedy of everything that building the interfaces needs and this machine lacks."""
    prefixes = environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    compiler = shlex.split(environment.get("CXX", "c++"))[0]
    python_header = Path(sysconfig.get_path("include"), "Python.h")
    needs = {
        "cmake": (shutil.which("cmake", path=environment["PATH"]), "pip install cmake"),
        f"a C++ compiler ({compiler})": (
            shutil.which(compiler, path=environment["PATH"]),
            "apt-get install build-essential",
        ),
        f"the Python headers ({python_header})": (
            python_header.exists(),
            f"apt-get install python{sys.version_info.major}.{sys.version_info.minor}-dev",
        ),
        "the ROS 2 interface generators (rosidl_default_generators)": (
            any(
                prefix and Path(prefix, PACKAGE_MARKERS, "rosidl_default_generators").exists()
                for prefix in prefixes
            ),
            "source /opt/ros/<distribution>/setup.bash, or without a ROS installation:"
            " pip install -r requirements/ros.txt",
        ),
    }
    missing = [f"  {what}\n    remedy: {remedy}" for what, (found, remedy) in needs.items() if not found]
    if missing:
        raise SystemExit(
            f"cannot build {INTERFACES} (the folder msg/), this is missing:\n" + "\n".join(missing)
        )


def install_interfaces(prefix: Path, build_folder: Path) -> None:
    """Configure, build and install msg/ into `prefix`, unless another prefix offers it."""
    if interfaces_in_another_prefix(prefix):
        return
    environment = build_environment()
    check_build_tools(environment)
    cache = build_folder / "CMakeCache.txt"
    if cache.exists() and f"={PYTHON}\n" not in cache.read_text():
        shutil.rmtree(build_folder)  # configured for another interpreter, whose packages the cache remembers

    def cmake(*arguments: str | Path) -> None:
        subprocess.check_call(["cmake", *map(str, arguments)], env=environment)

    cmake(
        *("-S", ROOT / "msg", "-B", build_folder),
        *(("-G", "Ninja") if shutil.which("ninja", path=environment["PATH"]) else ()),
        f"-DCMAKE_INSTALL_PREFIX={prefix}",
        f"-DCMAKE_PROJECT_INCLUDE={ROOT / 'cmake' / 'ros_wheels.cmake'}",
        f"-DPython3_EXECUTABLE={PYTHON}",
        "-DCMAKE_BUILD_TYPE=Release",
        "-DCMAKE_INSTALL_MESSAGE=NEVER",
        "-DBUILD_TESTING=OFF",
    )
    cmake("--build", build_folder, "--parallel", str(os.cpu_count() or 1))
    cmake("--install", build_folder)


def write_node_scripts(folder: Path) -> None:
    """Write a script for every node that has none in `folder` yet; colcon's own scripts are left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in NODES.items():
        script = folder / name
        if not script.exists():
            module, function = target.split(":")
            script.write_text(NODE_SCRIPT.format(module=module, function=function))
            script.chmod(0o755)


class InstallData(install_data):
    """Install data files, interfaces and node scripts: pip in both forms, and colcon."""

    def run(self) -> None:
        """Install into `install_dir`: the wheel's data scheme under pip, the install prefix under colcon."""
        super().run()
        prefix = Path(self.install_dir).resolve()
        install_interfaces(prefix, interfaces_build_folder(self))
        write_node_scripts(prefix / "lib" / PACKAGE)


class Develop(develop):
    """Link the sources and install the interfaces: `colcon build --symlink-install`."""

    def run(self) -> None:
        """Install the interfaces into sys.prefix, which colcon sets to the install prefix."""
        super().run()
        install_interfaces(Path(sys.prefix).resolve(), interfaces_build_folder(self))


def interfaces_build_folder(command: install_data | develop) -> Path:
    """Return the folder in which CMake builds the interfaces."""
    return Path(command.get_finalized_command("build").build_temp).resolve() / INTERFACES


class RosDistribution(Distribution):
    """A distribution with compiled interfaces and with data files."""

    def has_ext_modules(self) -> bool:
        """Tag wheels for this platform and Python: the interfaces are compiled."""
        return True

    def has_data(self) -> bool:
        """Install data files in editable installs too; setuptools skips them unless this exists."""
        return bool(self.data_files)


setup(
    name=PACKAGE,
    version="0.1.0",
    description="Trains point-cloud policies by gradients through multiphysics simulation, inside ROS 2",
    long_description="See README.md.",
    author="The rewarped_sim maintainers",
    maintainer="The rewarped_sim maintainers",
    maintainer_email="maintainers@rewarped-sim.example.com",
    license="Apache-2.0",
    python_requires=">=3.10,<3.13",
    packages=find_packages(include=["rewarped_sim*", "sapo_learner*", "policy_runner*"]),
    data_files=[
        (str(PACKAGE_MARKERS), [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        *files_to_install("launch"),
        *files_to_install("config"),
        *files_to_install("security"),
    ],
    install_requires=["setuptools", *requirements("runner"), *requirements("train")],
    extras_require={
        "import": requirements("import"),
        "test": ["pytest"],  # tells `colcon test` to run pytest
    },
    entry_points={"console_scripts": [f"{name} = {target}" for name, target in (NODES | COMMANDS).items()]},
    zip_safe=False,
    distclass=RosDistribution,
    cmdclass={"install_data": InstallData, "develop": Develop},
)
