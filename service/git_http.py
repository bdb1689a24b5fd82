"""/<project>.git: the smart HTTP protocol of git (gitprotocol-http(5)), for clone, fetch and push.

The adapter between Flask and `gitstore.receive` and `gitstore.upload`. What a person in a terminal should
read is answered as text/plain, which git prints as `remote: ...`.
"""

from __future__ import annotations

import gzip
import tempfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Final

from flask import Blueprint, Response, current_app, request
from werkzeug.exceptions import ClientDisconnected

from gitstore import receive, upload
from gitstore.errors import Code, GitstoreError
from gitstore.model import Permission
from gitstore.packs import too_large
from gitstore.policy import Verdict
from gitstore.recording import Occasion
from gitstore.telling import Telling

FETCH_LIMIT: Final = 32 * 2**20  # bytes of wants and haves
_DRAIN_LIMIT: Final = 256 * 2**20  # bytes of a refused push that are read away, so that git reads our answer
_CHUNK: Final = 64 * 1024
_FETCH, _PUSH = "git-upload-pack", "git-receive-pack"

blueprint = Blueprint("git", __name__)
