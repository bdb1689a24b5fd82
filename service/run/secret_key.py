"""Key that seals the secrets in the database: from the settings, or generated once in the data folder.

A key is generated only while nothing is sealed: a new key in place of a lost one would decrypt nothing, and
the loss would go unnoticed until the next delivery.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from gitstore.diff.summary import count
from gitstore.errors import ConfigError
from gitstore.git.files import fsync_folder
from service import logs
from service.config import Config
from service.logs import Event
from sync.db import Database
from webhooks.lost_secrets import Lost, lost
from webhooks.secrets import Sealer, keys_in, new_key


def sealer(config: Config, database: Database) -> Sealer:
    """Return the sealer of the service; generate its key if it has none and nothing is sealed.

    Raises `config` if the key's file is missing or damaged.
    """
    found = sealer_at_hand(config)
    if found is not None:
        return found
    with database.as_mirror() as transaction:
        if lost(transaction, None):
            raise ConfigError("the key of the secrets is missing: gitstore secrets check shows the way on")
    return made_sealer(config)


def checked_sealer(config: Config, database: Database) -> Sealer:
    """As `sealer`; raises `config` also if it cannot decrypt every secret in the database."""
    with database.as_owner() as transaction:
        found = lost(transaction, sealer_at_hand(config))
    if found:
        raise ConfigError(explanation(config, found))
    return sealer(config, database)


def made_sealer(config: Config) -> Sealer:
    """As `sealer`, but always generate a missing key: for secrets that are sealed from now on."""
    found = sealer_at_hand(config)
    if found is None:
        _make(config.secret_key_file)
        found = sealer_at_hand(config)
    assert found is not None  # noqa: S101 - it was just made
    return found


def sealer_at_hand(config: Config) -> Sealer | None:
    """Return a sealer with the existing keys, or None if there are no keys.

    Raises `config` for a damaged file.
    """
    if config.secret_key is not None:
        return Sealer(keys_in(config.secret_key))
    path = config.secret_key_file
    try:
        return Sealer(keys_in(path.read_text(encoding="ascii").strip()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the key in {path} can't be used: restore the file from a backup, or set GITSTORE_SECRET_KEY. "
            "If there is no backup, move the file away: gitstore secrets check then shows what is affected",
        ) from error


def explanation(config: Config, found: Sequence[Lost]) -> str:
    """Return the operator's message: secrets that cannot be decrypted, the reason, and remedies.

    For the operator only, as it counts all projects.
    """
    nouns = ("subscription", "source")
    counts = [(len({one.owner for one in found if one.noun == noun}), noun) for noun in nouns]
    affected = " and ".join(count(number, noun) for number, noun in counts if number)
    path = config.secret_key_file
    if config.secret_key is not None:
        cause = "GITSTORE_SECRET_KEY is not the key that sealed them"
    elif path.exists():
        cause = f"the key in {path} is not the one that sealed them"
    else:
        cause = f"{path} is missing, and GITSTORE_SECRET_KEY is not set"
    return (
        f"the secrets of {affected} can't be opened: {cause}\n"
        f"to recover them: restore {path} from a backup, or set GITSTORE_SECRET_KEY to the key that sealed "
        "them (behind the present one and a comma, if that is needed too)\n"
        "to give them up: gitstore secrets reset lists and clears them; they have to be entered again"
    )


def _make(path: Path) -> None:
    """Create the file atomically, and once: of several concurrent processes, the first one's file is kept."""
    handle, made = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # with mode 0600
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(new_key() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(made, path)
            # The key also seals the session cookies of the pages.
            ended = "those of an earlier key have ended: sign in again"
            logs.action(Event.SECRET_KEY_CREATED, file=str(path), sessions=ended)
    finally:
        Path(made).unlink()
    fsync_folder(path.parent)
