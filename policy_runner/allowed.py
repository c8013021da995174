"""Which bundles a runner takes at all, whatever is in them.

Anyone on the ROS graph may call `~/load_policy` with any path. Where policies may come from is therefore said at
start, by whoever starts the runner, and cannot be changed from the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from policy_runner.settings import RunnerSettings


@dataclass(frozen=True, kw_only=True)
class AllowedBundles:
    """Folders that bundles must lie in and, optionally, the only bundles that are taken."""

    dirs: tuple[Path, ...]
    """Absolute, without links. A bundle is one of these folders or lies inside one."""
    sha256: frozenset[str] = frozenset()
    """Digests (`Bundle.digest`) of the bundles that are taken; empty: all."""

    @staticmethod
    def by(settings: RunnerSettings) -> AllowedBundles:
        """Return what the settings at start allow; without `policy_dirs`, only the folder of `policy` itself."""
        folders = [folder for folder in settings.policy_dirs if folder] or [settings.policy]
        return AllowedBundles(
            dirs=tuple(Path(folder).resolve() for folder in folders if folder),
            sha256=frozenset(digest.lower() for digest in settings.policy_sha256 if digest),
        )

    def folder_problem(self, folder: Path) -> str:
        """Say why a bundle may not come from this folder, absolute and without links; empty if it may.

        The answer, which whoever asked for the bundle gets to hear, does not tell where links lead.
        """
        if any(folder.is_relative_to(allowed) for allowed in self.dirs):
            return ""
        known = [str(allowed) for allowed in self.dirs]
        return f"expected a folder inside policy_dirs {known}, found one outside"

    def digest_problem(self, digest: str) -> str:
        """Say why the bundle with this digest is not taken; empty if it is."""
        if not self.sha256 or digest in self.sha256:
            return ""
        return f"sha256: expected one of policy_sha256 {sorted(self.sha256)}, found {digest}"
