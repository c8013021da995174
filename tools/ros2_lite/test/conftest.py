"""Launch files and a package, written into a temporary folder; the command runs in its own process."""

import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import pytest

DISTRIBUTION = Path(__file__).resolve().parent.parent
GUARD_S = 60  # only guards against a hang

IMPORTS = """
from launch import *
from launch.actions import *
from launch.conditions import *
from launch.event_handlers import *
from launch.events import matches_action
from launch.launch_description_sources import *
from launch.substitutions import *
from launch_ros.actions import *
from launch_ros.parameter_descriptions import *
from launch_ros.substitutions import *
import launch
"""


@dataclass
class Workspace:
    """A folder that is an install prefix with the package `demo`."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def share(self) -> Path:
        return self.root / "share" / "demo"

    def launch_file(self, name: str, *entities: str, before: str = "") -> Path:
        """Write a launch file whose description consists of `entities`, after the statements in `before`."""
        path = self.share / "launch" / name
        body = textwrap.indent(textwrap.dedent(before), "    ")
        listed = ",\n        ".join(entities)
        function = f"def generate_launch_description():\n{body}\n    return LaunchDescription([{listed}])\n"
        path.write_text(f"{IMPORTS}\n{function}")
        return path

    def executable(self, name: str, text: str) -> Path:
        """Write an executable of the package."""
        path = self.root / "lib" / "demo" / name
        path.write_text(textwrap.dedent(text))
        path.chmod(0o755)
        return path

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start `ros2 WORDS...`."""
        return subprocess.Popen(
            [sys.executable, "-c", "from ros2_lite.cli import main; main()", *map(str, words)],
            env=os.environ
            | {
                "AMENT_PREFIX_PATH": str(self.root),
                "PATH": "/usr/bin:/bin",
                "PYTHONPATH": str(DISTRIBUTION),
                "PYTHONUNBUFFERED": "1",
            }
            | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ros2(self, *words: str | Path) -> tuple[int, str]:
        """Run `ros2 WORDS...` and return its exit code and all that it printed."""
        process = self.start(*words)
        try:
            output, _ = process.communicate(timeout=GUARD_S)
        finally:
            process.kill()
        return process.returncode, output

    def launch(self, *entities: str, arguments: tuple[str, ...] = (), before: str = "") -> tuple[int, str]:
        """Launch a file made of `entities`."""
        return self.ros2("launch", self.launch_file("main.launch.py", *entities, before=before), *arguments)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    root = tmp_path / "prefix"
    for folder in ("share/ament_index/resource_index/packages", "share/demo/launch", "lib/demo"):
        (root / folder).mkdir(parents=True)
    (root / "share/ament_index/resource_index/packages/demo").touch()
    return Workspace(root)
