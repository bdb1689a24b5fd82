"""Set-up of a new gitstore: the project `default` and a token for its owner; and the greeting of `serve`.

The set-up is idempotent. Several processes may run it at once: one does the work, in a transaction under an
advisory lock, and the others find it done.

The greeting has five lines that publish a workflow. They can be pasted as they are into any POSIX shell of
this machine, without any configuration of git: the clone reads the owner's token from its file whenever git
asks for a password, so that it appears in no URL, no argument and no history.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final, LiteralString
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from gitstore.errors import Code, ConflictError, NotFoundError
from gitstore.git.files import write_atomically
from gitstore.model import Rules
from gitstore.names import check_slug
from service.access import digest, is_token
from service.actions.projects import insert_token
from service.config import Config
from service.projects import DEFAULT, Projects
from sync import audit, catalog, tokens
from sync.audit import Origin
from sync.catalog import Project
from sync.db import Database, Transaction

OWNER: Final = "owner"
"""Name and role of the first token."""
OPERATOR: Final = Origin("operator", "operator", "cli")

_LOCK: Final[LiteralString] = "select pg_advisory_xact_lock(hashtextextended('gitstore setup', 0))"
_NEW_TOKEN: Final = f"gitstore token create {DEFAULT} --role owner --name <name>"
_GIT: Final = "git -c user.name=You -c user.email=you@example.com"
_FIRST_NODE: Final = "{id: start, type: webhook, position: {x: 0, y: 0}, data: {label: Start}}"
_MOST_SLUGS: Final = 1000


@dataclass(frozen=True, slots=True)
class Setup:
    """Result of the set-up: `token` is the content of the owner's file, None if it is not active.

    `project` is `default` or, where there are only others, the first of them. `notes` are for the operator.
    """

    project: Project
    token: str | None
    notes: tuple[str, ...] = ()


def set_up(config: Config, database: Database) -> Setup:
    """Create the project `default`, its repository, and the owner's token and its file, unless they exist.

    Where there are other projects, a missing `default` is not created.
    """
    projects = Projects(config)
    notes: list[str] = []
    with database.as_owner() as transaction:
        transaction.value(_LOCK)
        known = catalog.projects(transaction)
        project = catalog.project(transaction, DEFAULT)
        unclaimed = projects.unclaimed(known)
        if project is None and not known:
            # A new database, with the only repository of an older database that was lost.
            adopted = unclaimed.pop() if len(unclaimed) == 1 else None
            project = create_project(transaction, projects, adopted or uuid4(), DEFAULT, "Default")
            if adopted:
                notes.append(
                    f"this database is new; the existing repository {adopted}.git is now that of the project "
                    f"{DEFAULT}. Tokens, sources and subscriptions are lost; to derive the rows of its "
                    f"workflows again: gitstore rebuild {DEFAULT}"
                )
        notes += [
            f"the repository {repository}.git belongs to no project of this database: gitstore project "
            f"create <slug> --repository {repository}, then gitstore rebuild <slug>"
            for repository in unclaimed
        ]
        notes += filter(None, map(projects.missing, catalog.projects(transaction)))
        if project is None:  # an import or an operator made others
            return Setup(known[0], None, tuple(notes))
        token, note = _owner_token(config, database, transaction, project)
        return Setup(project, token, (*notes, note) if note else tuple(notes))


def _owner_token(
    config: Config, database: Database, transaction: Transaction, project: Project
) -> tuple[str | None, str | None]:
    """Return the token in the owner's file, or a note for the operator.

    A token is created if the project never had any. A lost one is not replaced: it would stay active along
    with the second.
    """
    file = config.token_file
    if (written := read_token(file)) is not None:
        holder = tokens.authenticate(database, digest(written))
        if holder is not None and holder.project.id == project.id:
            return written, None
    known = [token for token in tokens.tokens(transaction, project.id) if token.name == OWNER]
    revocations = [f"gitstore token revoke {token.id}" for token in known if not token.revoked_at]
    if revocations:
        commands = " && ".join([_NEW_TOKEN, *revocations])
        return None, (
            f"{file} is missing, or has no token of this database. The owner's token is still active, so no "
            f"other one is created. If it is lost: {commands}"
        )
    if known:  # revoked on purpose: a restart must not undo that
        return None, f"the owner's token is revoked; to create another one: {_NEW_TOKEN}"
    _, secret = insert_token(transaction, project.id, OPERATOR, OWNER, OWNER)
    # Before the commit: a kill leaves a file with an unknown token, and the next start overwrites it.
    write_atomically(file, secret + "\n")
    return secret, None


def create_project(
    transaction: Transaction,
    projects: Projects,
    project_id: UUID,
    slug: str,
    name: str,
    rules: Rules = Rules.MESHHOOK,
    owner: UUID | None = None,
) -> Project:
    """Create a project and its repository; the repository comes first, so no project lacks one.

    Raises `invalid_name`; `project_exists`, at the latest when the transaction ends.
    """
    check_slug(slug)
    if catalog.project(transaction, slug) is not None:
        raise ConflictError(Code.PROJECT_EXISTS, f"there is a project {slug} already", project=slug)
    projects.init(project_id)
    project = catalog.create_project(transaction, project_id, slug, name, rules, owner)
    details = {"rules": rules.value, **({"owner": str(owner)} if owner else {})}
    _note(transaction, project, "project.created", slug, details)
    return project


def named_project(transaction: Transaction, slug: str) -> Project:
    """Return the project; raises `project_not_found`, with a hint for the operator."""
    project = catalog.project(transaction, slug)
    if project is None:
        message = f"there is no project {slug!r}: see gitstore project list"
        raise NotFoundError(Code.PROJECT_NOT_FOUND, message, project=slug)
    return project


def read_token(path: Path) -> str | None:
    """Return the token in the file, or None if there is no token."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return text if is_token(text) else None


def _note(
    transaction: Transaction, project: Project, action: str, object_: str, details: Mapping[str, object]
) -> None:
    audit.note(transaction, project.id, OPERATOR, action, object_, details)


def greeting(config: Config, setup: Setup, slug: str, *, terminal: bool) -> str:
    """Return the greeting. The token itself is shown on a terminal only, as other output may be stored."""
    lines = [f"gitstore is ready: {config.public_url}/", ""]
    lines += [f"note: {note}" for note in setup.notes]
    if setup.token is None:
        return "\n".join([*lines, ""])
    if terminal:
        lines += [f"The owner's token, also in {config.token_file}:", "", f"    {setup.token}", ""]
    else:
        lines += [f"The owner's token is in {config.token_file}", ""]
    lines += ["To publish a first workflow, paste these five lines into a shell:", ""]
    return "\n".join([*lines, *five_lines(config.public_url, config.token_file, slug), "", ""])


def read_node_greeting(config: Config, *, terminal: bool) -> str:  # noqa: ARG001 - as `greeting`
    """Return the greeting of a read node, which has no token to show."""
    return f"gitstore is ready: {config.public_url}/\n\nThis is a read node: it accepts no writes.\n"


def five_lines(url: str, token_file: Path, slug: str) -> list[str]:
    """Return the commands that clone, write, commit, push and publish the workflow `slug`."""
    # The empty helper first: it disables the machine's own helpers, which would store the token.
    helper = f'!f() {{ echo username=git; echo "password=$(cat {shlex.quote(str(token_file))})"; }}; f'
    clone = f"git clone -c credential.helper= -c credential.helper={shlex.quote(helper)}"
    if _is_loopback(url):
        clone += " -c http.proxy="  # git uses http_proxy for loopback addresses, too
    folder = shlex.quote(slug)
    name = slug.replace("-", " ").capitalize()
    return [
        f"{clone} {shlex.quote(f'{url}/{DEFAULT}.git')} {folder} && cd {folder}",
        rf"printf 'name: {name}\nnodes:\n  - {_FIRST_NODE}\n' > workflow.yaml",
        f"git checkout -b drafts/{slug} && git add workflow.yaml && {_GIT} commit -m 'Begin {slug}'",
        f"git push origin drafts/{slug}",
        f"{_GIT} tag -a {slug}/v1 -m 'The first version' && git push origin {slug}/v1",
    ]


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def unused_slug(database: Database, setup: Setup) -> str:
    """Return an unused slug for the workflow of the five lines, which are printed at every start."""
    with database.as_owner() as transaction:
        for number in range(1, _MOST_SLUGS):
            slug = "hello" if number == 1 else f"hello-{number}"
            if catalog.workflow_by_slug(transaction, setup.project.id, slug) is None:
                break
    return slug
