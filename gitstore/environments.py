"""Environments: named pointers of a workflow, such as `staging` and `prod`, and a project's rules on them.

The project's environments, in the order of promotion, are a file in the commit at refs/gitstore/environments,
each change of which is a commit on top. The pointers of a workflow are in the newest entry of its ledger. The
pointer `current` is older than environments: every project has it, and it is not among them.

    name     = [a-z][a-z0-9-]*, at most 40 characters; not `current`, `draft`, `latest`, or the shape of a
               version (`v3`) or of a UUID

Two versions with weights share the keys of the callers. A key belongs to the bucket

    int.from_bytes(sha256("<workflow id>/<environment>/<key>").digest()[:8], "big") % 100

and buckets below the weight of the newer version get that one. So a key that has the newer version keeps it
while its weight rises.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from gitstore import names
from gitstore.definition.quoting import clip
from gitstore.errors import Code, IntegrityError, InvalidDefinitionError, NotFoundError
from gitstore.git.commits import person, utc
from gitstore.model import Environment, LedgerEntry, Person, Problem, WorkflowState
from gitstore.repository import Repository

MOST: Final = 16
"""Environments of a project."""
MOST_HOURS: Final = 24 * 365
LONGEST_KEY: Final = 200

CURRENT: Final = "current"
FILE: Final = b"environments.json"
_RESERVED: Final = frozenset({CURRENT, "draft", "latest"})
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")
_VERSION: Final = re.compile(r"v?[0-9]+")
_RULE: Final = (
    "1 to 40 of a-z, 0-9 and '-', a letter first; current, draft, latest and versions such as v3 are reserved"
)


@dataclass(frozen=True, slots=True)
class EnvironmentRule:
    """The rules of an environment.

    `role` is the least role that may move its pointers. With `follows`, each publication moves them. `hours`
    is the time for which a version must have been in the environment before this one, in order.
    """

    name: str
    role: str
    follows: bool = False
    hours: int = 0


@dataclass(frozen=True, slots=True)
class Rulebook:
    """The environments of a project, in the order of promotion, and the commit that has them, or None."""

    rules: tuple[EnvironmentRule, ...] = ()
    commit: str | None = None

    def find(self, name: str) -> EnvironmentRule:
        """Return the rule of the environment `name`. Raises `environment_not_found`."""
        for rule in self.rules:
            if rule.name == name:
                return rule
        known = ", ".join([CURRENT, *(rule.name for rule in self.rules)])
        message = f"there is no environment {clip(name)!r}: this project has {known}"
        raise NotFoundError(Code.ENVIRONMENT_NOT_FOUND, message)

    def before(self, name: str) -> str | None:
        """Return the environment before `name` in the order of promotion, or None for the first."""
        order = [rule.name for rule in self.rules]
        return order[order.index(name) - 1] if order.index(name) else None


@dataclass(frozen=True, slots=True)
class RulebookChange:
    """A change of a project's environments: its commit, who made it, when (UTC), and the result."""

    commit: str
    by: Person
    at: datetime
    rules: tuple[EnvironmentRule, ...]


def is_name(text: str) -> bool:
    """Return whether `text` can be the name of an environment."""
    return (
        _NAME.fullmatch(text) is not None
        and text not in _RESERVED
        and _VERSION.fullmatch(text) is None
        and not names.is_uuid(text)
    )


def state_of(state: WorkflowState | LedgerEntry, name: str) -> Environment | None:
    """Return the pointer of a workflow in the environment `name`, or None; for `current`, too."""
    if name == CURRENT:
        return Environment(CURRENT, state.current, held=state.held) if state.current is not None else None
    return next((each for each in state.environments if each.name == name), None)


# The choice of a version


def choose(environment: Environment, workflow: UUID, key: str) -> int:
    """Return the version that the caller with `key` gets. Deterministic; see the module's description."""
    if environment.second is None:
        return environment.version
    return (
        environment.version
        if bucket(workflow, environment.name, key) < environment.weight
        else environment.second
    )


def bucket(workflow: UUID, name: str, key: str) -> int:
    """Return the bucket of a key, 0 to 99."""
    digest = hashlib.sha256(f"{workflow}/{name}/{key}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % 100


def weighted(name: str, weights: Mapping[int, int], *, held: bool = False) -> Environment:
    """Return the pointer on one or two versions with weights in percent. Raises `environment_invalid`."""
    if not 1 <= len(weights) <= 2:
        raise invalid(["weights: give one or two versions"])
    if sum(weights.values()) != 100 or any(not 0 <= weight <= 100 for weight in weights.values()):
        raise invalid([f"weights: they add up to {sum(weights.values())}, not to 100"])
    newer, *older = sorted(weights, reverse=True)
    if not older:
        return Environment(name, newer, held=held)
    if weights[newer] in (0, 100):
        return Environment(name, newer if weights[newer] else older[0], held=held)
    return Environment(name, newer, weights[newer], older[0], held)


# The rules of a project


def rulebook(repository: Repository) -> Rulebook:
    """Return the environments of the project. Raises `integrity` if they cannot be read."""
    tip = repository.refs.read(names.ENVIRONMENTS)
    return Rulebook(_rules_in(repository, tip), tip.decode()) if tip is not None else Rulebook()


def history(repository: Repository) -> Iterator[RulebookChange]:
    """Yield the changes of the project's environments, the newest first."""
    oid = repository.refs.read(names.ENVIRONMENTS)
    while oid is not None:
        commit = repository.objects.commit(oid)
        rules = _rules_in(repository, oid)
        yield RulebookChange(oid.decode(), person(commit.author), utc(commit.commit_time), rules)
        oid = next(iter(commit.parents), None)


def _rules_in(repository: Repository, commit: bytes) -> tuple[EnvironmentRule, ...]:
    try:
        tree = repository.objects.tree(repository.objects.commit(commit).tree)
        listed = json.loads(repository.objects.blob(tree[FILE][1]))["environments"]
        return tuple(EnvironmentRule(**rule) for rule in listed)
    except (KeyError, TypeError, ValueError) as error:
        message = f"the environments in {commit.decode()} are damaged: restore them from a backup"
        raise IntegrityError(message) from error


def check_rules(rules: Sequence[EnvironmentRule]) -> None:
    """Raise `environment_invalid` with everything that is wrong with the environments of a project."""
    wrong = []
    if len(rules) > MOST:
        wrong.append(f"a project has at most {MOST} environments, not {len(rules)}")
    seen: set[str] = set()
    for number, rule in enumerate(rules):
        if not is_name(rule.name):
            wrong.append(f"{clip(rule.name)!r} is not the name of an environment: use {_RULE}")
        if rule.name in seen:
            wrong.append(f"{rule.name} is listed twice")
        seen.add(rule.name)
        if not 0 <= rule.hours <= MOST_HOURS:
            wrong.append(f"{clip(rule.name)}: hours are 0 to {MOST_HOURS}, not {rule.hours}")
        if rule.hours and number == 0:
            wrong.append(f"{clip(rule.name)}: the first environment has none before it: set hours to 0")
        if rule.hours and rule.follows:
            wrong.append(f"{clip(rule.name)}: it cannot follow each publication and wait for hours")
    if wrong:
        raise invalid(wrong)


def with_pointer(pointers: Sequence[Environment], wanted: Environment) -> tuple[Environment, ...]:
    """Return `pointers` with `wanted` in the place of the one with its name, sorted by name."""
    others = (pointer for pointer in pointers if pointer.name != wanted.name)
    return tuple(sorted([*others, wanted], key=lambda pointer: pointer.name))


def followed(repository: Repository, pointers: Sequence[Environment], number: int) -> tuple[Environment, ...]:
    """Return `pointers` after the publication of version `number`: those that follow it, and are not held."""
    for rule in rulebook(repository).rules:
        if rule.follows:
            known = next((pointer for pointer in pointers if pointer.name == rule.name), None)
            if known is None or not known.held:
                pointers = with_pointer(pointers, Environment(rule.name, number))
    return tuple(pointers)


def invalid(wrong: Sequence[str]) -> InvalidDefinitionError:
    """Return the error that lists everything that is `wrong` with environments or weights."""
    problems = [Problem(Code.ENVIRONMENT_INVALID.value, message) for message in wrong]
    return InvalidDefinitionError(Code.ENVIRONMENT_INVALID, "; ".join(wrong), problems=problems)
