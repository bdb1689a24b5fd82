"""The scripts that Vite built from service/frontend, in service/static/built (hatch_build.py)."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any, Final

HOW_TO_BUILD: Final = "uv sync --reinstall-package gitstore"
"""It needs Node 20 or PyPI, and the registry of npm; the service then has to be restarted."""


def are_built() -> bool:
    return bool(_manifest())


def built(entry: str) -> tuple[str, list[str]] | None:
    """Return the files of a script and of its styles, whose names change with their content.

    None if the scripts were not built: pages then have plain forms.
    """
    chunk = _manifest().get(f"src/{entry}.js")
    if chunk is None:
        return None
    return f"built/{chunk['file']}", [f"built/{style}" for style in chunk.get("css", ())]


@cache
def _manifest() -> dict[str, Any]:
    """Return the entries of Vite's manifest by their sources."""
    try:
        text = (files("service") / "static" / "built" / "manifest.json").read_text()
    except FileNotFoundError:
        return {}
    manifest: dict[str, Any] = json.loads(text)
    return manifest
