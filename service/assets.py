"""Files of service/static, which of them Vite built from service/frontend (hatch_build.py), and /embed."""

from __future__ import annotations

import gzip
import hashlib
import json
from functools import cache, lru_cache
from importlib.resources import files
from mimetypes import guess_type
from pathlib import Path
from typing import Any, Final

from flask import Blueprint, Response, request
from werkzeug.security import safe_join

from gitstore.definition import kinds
from gitstore.errors import Code, NotFoundError

HOW_TO_BUILD: Final = "uv sync --reinstall-package gitstore"
"""It needs Node 20 or PyPI, and the registry of npm; the service then has to be restarted."""

FOREVER: Final = "public, max-age=31536000, immutable"
"""Cache-Control of a file whose URL changes with its content."""
_STATIC: Final = str(files("service") / "static")


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


def served(file: str, cache_control: str) -> Response:
    """Return a file of service/static, as gzip for clients that accept it. Raises NotFoundError."""
    path = safe_join(_STATIC, file)
    if path is None or not Path(path).is_file():
        raise NotFoundError(Code.NOT_FOUND, "there is no such file")
    content, packed = _content(path)
    is_packed = packed is not None and request.accept_encodings["gzip"] > 0
    response = Response(packed if is_packed else content, mimetype=guess_type(path)[0])
    response.vary.add("Accept-Encoding")
    if is_packed:
        response.content_encoding = "gzip"
    return tagged(response, cache_control)


def tagged(response: Response, cache_control: str) -> Response:
    """Return a public answer with an ETag; 304 for a client that has it."""
    response.set_etag(hashlib.sha256(response.get_data()).hexdigest()[:16])
    response.headers["Cache-Control"] = cache_control
    # A worker's own policy is that of its script.
    response.headers["Content-Security-Policy"] = "default-src 'none'; script-src 'self'"
    response.make_conditional(request)
    return response


@lru_cache(maxsize=64)
def _content(path: str) -> tuple[bytes, bytes | None]:
    """Return a file, and it as gzip unless that is no shorter."""
    content = Path(path).read_bytes()
    packed = gzip.compress(content, mtime=0)
    return content, packed if len(packed) < len(content) else None


# /embed: custom elements that show a workflow in a page of another origin (service/frontend/src/embed).
# `/embed/gitstore.js` is their stable URL. It only names the script of this version, whose files have their
# hash in the name. Only pages of GITSTORE_CORS_ORIGINS can load them, as browsers fetch modules with CORS.

embedding: Final = Blueprint("embedding", __name__)
_SHORT: Final = "public, max-age=300"


@embedding.get("/embed/gitstore.js")
def entry() -> Response:
    """Return the script that defines the elements."""
    script = built("embed/gitstore")
    if script is None:
        raise NotFoundError(Code.NOT_FOUND, f"the elements were not built: run {HOW_TO_BUILD}")
    name = script[0].rpartition("/")[2]
    return tagged(Response(f'export * from "./{name}";\n', mimetype="text/javascript"), _SHORT)


@embedding.get("/embed/kinds.json")
def list_kinds() -> Response:
    """Return the kinds of nodes with their settings, for palettes and forms."""
    described = json.dumps({"kinds": kinds.as_json()})
    return tagged(Response(described, mimetype="application/json"), _SHORT)


@embedding.get("/embed/<file>")
def chunk(file: str) -> Response:
    """Return a script that the entry loads."""
    return served(f"built/assets/{file}", FOREVER)
