"""JSON Schemas (2020-12) of projects: the flaws of a schema, and what a definition violates.

A schema is untrusted. Its size and depth are limited before it is used, its regular expressions take linear
time, and nothing that it refers to is fetched. It can still ask for time that is exponential in the depth of
a definition, so a process of its own applies it, under limits of CPU time and memory.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from gitstore.definition.elements import Finding
from gitstore.definition.quoting import INVISIBLE, clip
from gitstore.errors import ConfigError, UnavailableError
from gitstore.model import Limits

LARGEST: Final = 256 * 2**10
"""Bytes of a schema."""
LIMITS: Final = Limits(definition=LARGEST)
VIOLATION: Final = "schema_violation"
UNUSABLE: Final = "schema_unusable"
"""Code of the problem that a schema cannot be applied."""
CPU_SECONDS: Final = 2
_MEMORY: Final = 2**30  # bytes of address space; a definition of 4 MiB takes a quarter
_PATIENCE: Final = 30.0  # seconds of real time, on a machine that is busy
_LONGEST_MESSAGE: Final = 300


@dataclass(frozen=True, slots=True)
class Schema:
    """The schema in the commit `commit`; `text` is None if it cannot be read."""

    commit: str
    text: bytes | None


Findings = tuple[list[Finding], int]
"""What was found, and how much more there is."""


class UnusableError(Exception):
    """A schema that cannot be applied; the message gives the reason."""


def violations(schema: Schema, value: Any) -> Findings:
    """Return what violates the schema in the value of a definition."""
    try:
        return _run(_one_line(schema), json.dumps(value))
    except UnusableError as error:
        return [Finding(UNUSABLE, f"the project's schema {error}", ())], 0


def flaws(schema: Any) -> Findings:
    """Return what is wrong with a schema, which is a mapping."""
    try:
        return _run(json.dumps(schema))
    except UnusableError as error:
        return [Finding(UNUSABLE, f"the schema {error}", ())], 0


def _one_line(schema: Schema) -> str:
    try:
        return json.dumps(json.loads(schema.text or b""))
    except (ValueError, RecursionError):
        raise UnusableError("can't be read: an owner sets it again") from None


def _run(*lines: str) -> Findings:
    """Apply a schema to a value, or check it without one, in a process of its own. Raises `UnusableError`."""
    script = str(Path(__file__).with_name("schema_process.py"))
    arguments = [sys.executable, "-I", "-S", script, _library(), str(CPU_SECONDS), str(_MEMORY)]
    try:
        done = subprocess.run(
            arguments,
            input="\n".join(lines).encode(),
            capture_output=True,
            check=False,
            timeout=_PATIENCE,
            env={},
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError("checking the schema took too long: the machine is busy") from None
    except OSError as error:
        raise UnavailableError(f"the schema can't be applied now: {error.strerror}") from error
    if done.returncode != 0:
        raise UnusableError(f"takes more than {CPU_SECONDS} s of CPU time, or too much memory: simplify it")
    answer = json.loads(done.stdout)
    if "unusable" in answer:
        raise UnusableError(f"can't be applied: {_shown(answer['unusable'])}")
    found = [Finding(VIOLATION, _shown(message), tuple(path)) for path, message in answer["found"]]
    return found, answer["more"]


@cache
def _library() -> str:
    """Return the folder that holds jsonschema_rs."""
    found = importlib.util.find_spec("jsonschema_rs")
    if found is None or found.origin is None:
        raise ConfigError("jsonschema-rs is not installed")
    return str(Path(found.origin).parent.parent)


def _shown(message: str) -> str:
    """Return a message as one line for terminals: it repeats keys of the definition."""
    return clip(INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", message), _LONGEST_MESSAGE)
