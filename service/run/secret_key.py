"""Key that seals the secrets in the database: from the settings, or generated once in the data folder.

A key is generated only while nothing is sealed: a new key in place of a lost one would decrypt nothing, and
the loss would go unnoticed until the next delivery.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from gitstore.diff.summary import count
from gitstore.errors import ConfigError
from gitstore.git.files import write_atomically
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
    existing = existing_sealer(config)
    if existing is not None:
        return existing
    with database.as_mirror() as transaction:
        if lost(transaction, None):
            raise ConfigError("the secret key is missing: run gitstore secrets check")
    return created_sealer(config)


def checked_sealer(config: Config, database: Database) -> Sealer:
    """As `sealer`; raises `config` also if it cannot decrypt every secret in the database."""
    with database.as_owner() as transaction:
        undecryptable = lost(transaction, existing_sealer(config))
    if undecryptable:
        raise ConfigError(explanation(config, undecryptable))
    return sealer(config, database)


def created_sealer(config: Config) -> Sealer:
    """As `sealer`, but always generate a missing key: for secrets that are sealed from now on.

    Of several processes that generate one at once, the first one's key is kept.
    """
    path = config.secret_key_file
    if existing_sealer(config) is None:
        with suppress(FileExistsError):
            write_atomically(path, new_key() + "\n", replace=False)
            # The key also seals the session cookies of the pages.
            ended = "those of an earlier key have ended: sign in again"
            logs.action(Event.SECRET_KEY_CREATED, file=str(path), sessions=ended)
    sealer = existing_sealer(config)
    assert sealer is not None  # noqa: S101 - it was just created
    return sealer


def existing_sealer(config: Config) -> Sealer | None:
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
            f"the key in {path} is not valid: restore the file from a backup, or set GITSTORE_SECRET_KEY. "
            "If there is no backup, move the file away: gitstore secrets check then lists what is affected",
        ) from error


def explanation(config: Config, undecryptable: Sequence[Lost]) -> str:
    """Return a message for the operator: how many secrets cannot be decrypted, and remedies."""
    nouns = ("subscription", "source")
    counts = [
        (len({secret.owner for secret in undecryptable if secret.noun == noun}), noun) for noun in nouns
    ]
    affected = " and ".join(count(number, noun) for number, noun in counts if number)
    path = config.secret_key_file
    if config.secret_key is not None:
        cause = "GITSTORE_SECRET_KEY is not the key that encrypted them"
    elif path.exists():
        cause = f"the key in {path} is not the one that encrypted them"
    else:
        cause = f"{path} is missing, and GITSTORE_SECRET_KEY is not set"
    return (
        f"the secrets of {affected} cannot be decrypted: {cause}\n"
        f"to recover them: restore {path} from a backup, or set GITSTORE_SECRET_KEY to the key that "
        "encrypted them (after the present key and a comma, if that key is in use, too)\n"
        "to give them up: gitstore secrets reset lists and clears them; then enter them again"
    )
