"""/embed: custom elements that show a workflow in a page of another origin (service/frontend/src/embed).

`/embed/gitstore.js` is their stable URL. It only names the script of this version, whose files have their
hash in the name. Only pages of GITSTORE_CORS_ORIGINS can load them, as browsers fetch modules with CORS.
"""

from __future__ import annotations

import json
from typing import Final

from flask import Blueprint, Response

from gitstore.definition import kinds
from gitstore.errors import Code, NotFoundError
from service import assets

blueprint: Final = Blueprint("embedding", __name__)
_SHORT: Final = "public, max-age=300"


@blueprint.get("/embed/gitstore.js")
def entry() -> Response:
    """Return the script that defines the elements."""
    built = assets.built("embed/gitstore")
    if built is None:
        raise NotFoundError(Code.NOT_FOUND, f"the elements were not built: run {assets.HOW_TO_BUILD}")
    name = built[0].rpartition("/")[2]
    return assets.tagged(Response(f'export * from "./{name}";\n', mimetype="text/javascript"), _SHORT)


@blueprint.get("/embed/kinds.json")
def list_kinds() -> Response:
    """Return the kinds of nodes with their settings, for palettes and forms."""
    described = json.dumps({"kinds": kinds.as_json()})
    return assets.tagged(Response(described, mimetype="application/json"), _SHORT)


@blueprint.get("/embed/<file>")
def chunk(file: str) -> Response:
    """Return a script that the entry loads."""
    return assets.served(f"built/assets/{file}", assets.FOREVER)
