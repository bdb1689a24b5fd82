"""The key that seals the secrets in the database: of the settings, or made once in the data folder."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from gitstore.disk.durable import fsync_folder
from gitstore.errors import Code, GitstoreError
from service.config import Config
from webhooks.sealing import Sealer, keys_in, new_key


def sealer(config: Config) -> Sealer:
    """What seals and opens secrets here. Raises `config` where the key's file is of no use."""
    if config.secret_key is not None:
        return Sealer(keys_in(config.secret_key))
    path = config.secret_key_file
    try:
        if not path.exists():
            _make(path)
        return Sealer(keys_in(path.read_text(encoding="ascii").strip()))
    except (OSError, ValueError) as error:
        raise GitstoreError(
            Code.CONFIG,
            f"the key in {path} can't be used: put the file back as it was, or set GITSTORE_SECRET_KEY. "
            "Without the key, the secrets of subscriptions and sources have to be made anew",
        ) from error


def _make(path: Path) -> None:
    """Whole or not at all, and once: where several processes do it at a time, the first one's stays."""
    handle, made = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # with mode 0600
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(new_key() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(made, path)
    finally:
        Path(made).unlink()
    fsync_folder(path.parent)
