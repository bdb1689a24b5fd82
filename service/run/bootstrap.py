"""Set-up of a new gitstore: the project `default`, and a token for its owner.

Idempotent. Several processes may run it at once: one does the work, in a transaction under an advisory lock,
and the others find it done.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, LiteralString
from uuid import UUID, uuid4

from gitstore.errors import Code, ConflictError, NotFoundError
from gitstore.git.files import fsync_folder
from gitstore.model import Rules
from gitstore.names import check_slug
from service.config import Config
from service.credentials import digest, is_token, new_token
from service.projects import DEFAULT, Projects
from sync import audit, catalog, tokens
from sync.audit import Origin
from sync.catalog import Project
from sync.db import Database, Transaction
from sync.tokens import Token

OWNER: Final = "owner"
"""Name and role of the first token."""
OPERATOR: Final = Origin("operator", "operator", "cli")

_LOCK: Final[LiteralString] = "select pg_advisory_xact_lock(hashtextextended('gitstore setup', 0))"


@dataclass(frozen=True, slots=True)
class Setup:
    """Result of the set-up: `token` is the content of the owner's file, None if it no longer works.

    `said` are lines for the operator.
    """

    project: Project
    token: str | None
    said: tuple[str, ...] = ()


def set_up(config: Config, database: Database, *, new_id: Callable[[], UUID] = uuid4) -> Setup:
    """Create whatever is missing: the project `default`, its repository, the owner's token and its file."""
    projects = Projects(config)
    with database.as_owner() as transaction:
        transaction.value(_LOCK)
        known = catalog.projects(transaction)
        project, found = catalog.project(transaction, DEFAULT), []
        unclaimed = projects.unclaimed(known)
        if project is None:
            # A new database, with the only repository of an older database that was lost.
            only = unclaimed.pop() if not known and len(unclaimed) == 1 else None
            project = create_project(transaction, projects, only or new_id(), DEFAULT, "Default")
            if only:
                found.append(_adopted(only))
        lost = [line for one in catalog.projects(transaction) if (line := projects.missing(one))]
        token, said = _owner_token(config, database, transaction, project)
        return Setup(project, token, (*found, *map(_unclaimed, unclaimed), *lost, *said))


def _adopted(repository: UUID) -> str:
    return (
        f"this database is new, and the repository {repository}.git is older: it is the project {DEFAULT} "
        "now. Tokens, sources and subscriptions are lost; to make the rows of its workflows again: "
        f"gitstore rebuild {DEFAULT}"
    )


def _unclaimed(repository: UUID) -> str:
    return (
        f"the repository {repository}.git belongs to no project of this database: gitstore project create "
        f"<slug> --repository {repository}, then gitstore rebuild <slug>"
    )


def _owner_token(
    config: Config, database: Database, transaction: Transaction, project: Project
) -> tuple[str | None, list[str]]:
    """Return the token in the owner's file, and messages about it for the operator.

    A token is created if the project never had any. A lost one is not replaced: it is still active, and would
    remain so along with the second.
    """
    written = read_token(config.token_file)
    if written and _works(database, project, written):
        return written, []
    known = [token for token in tokens.tokens(transaction, project.id) if token.name == OWNER]
    in_force = [token for token in known if not token.revoked_at]
    if in_force:
        return None, [_lost(config, in_force)]
    if known:
        # Revoked on purpose: a restart must not undo it.
        return None, [f"the owner's token was revoked; another: {_ANOTHER}"]
    secret, _ = create_token(transaction, project, OWNER, OWNER)
    # Before the commit: a kill leaves a file with an unknown token, and the next start overwrites it.
    write_secret(config.token_file, secret)
    return secret, []


_ANOTHER: Final = f"gitstore token create {DEFAULT} --role owner --name <name>"


def create_project(
    transaction: Transaction,
    projects: Projects,
    project_id: UUID,
    slug: str,
    name: str,
    rules: Rules = Rules.MESHHOOK,
) -> Project:
    """Create a project and its repository; the repository comes first, so no project lacks one.

    Raises `invalid_name`; `project_exists`, at the latest when the transaction ends.
    """
    check_slug(slug)
    if catalog.project(transaction, slug) is not None:
        raise ConflictError(Code.PROJECT_EXISTS, f"there is a project {slug} already", project=slug)
    projects.init(project_id)
    project = catalog.create_project(transaction, project_id, slug, name, rules)
    _note(transaction, project, "project.created", slug, {"rules": rules.value})
    return project


def named_project(transaction: Transaction, slug: str) -> Project:
    """Return the project; raises `project_not_found`, with a hint for the operator."""
    found = catalog.project(transaction, slug)
    if found is None:
        message = f"there is no project {slug!r}: see gitstore project list"
        raise NotFoundError(Code.PROJECT_NOT_FOUND, message, project=slug)
    return found


def create_token(
    transaction: Transaction, project: Project, name: str, role: str, expires_at: datetime | None = None
) -> tuple[str, Token]:
    """Create a token of the project; return the secret, which is not stored, and the token's row."""
    secret = new_token()
    token = tokens.create(transaction, project.id, name, role, digest(secret), expires_at)
    _note(transaction, project, "token.created", str(token.id), {"name": name, "role": role})
    return secret, token


def revoke_token(transaction: Transaction, token_id: UUID) -> Project | None:
    """Revoke a token of any project; return that project, or None if there is no such active token."""
    for project in catalog.projects(transaction):
        if tokens.revoke(transaction, project.id, token_id):
            _note(transaction, project, "token.revoked", str(token_id), {})
            return project
    return None


def read_token(path: Path) -> str | None:
    """Return the token in the file, or None if there is no token."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return text if is_token(text) else None


def write_secret(path: Path, secret: str) -> None:
    """Write one line readable by its owner only: atomically, and durable across a power cut."""
    handle, made = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # with mode 0600
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(made).replace(path)
    except BaseException:
        Path(made).unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def _works(database: Database, project: Project, secret: str) -> bool:
    holder = tokens.authenticate(database, digest(secret))
    return holder is not None and holder.project.id == project.id


def _lost(config: Config, in_force: Sequence[Token]) -> str:
    revoking = " && ".join(f"gitstore token revoke {token.id}" for token in in_force)
    return (
        f"{config.token_file} is missing, or holds no token of this database. The owner's token is still in "
        f"force, and no other is made. If it is lost: {_ANOTHER} && {revoking}"
    )


def _note(
    transaction: Transaction, project: Project, action: str, object_: str, details: Mapping[str, object]
) -> None:
    audit.note(transaction, project.id, OPERATOR, action, object_, details)
