"""Script that applies a JSON Schema, in a process of its own under limits: schema.py starts it.

argv: the folder of jsonschema_rs, the seconds of CPU time, the bytes of memory. stdin: the schema as a line
of JSON, then the definition as another, unless the schema itself is to be checked. stdout: {"found": [[path,
message], ...], "more": n}, or {"unusable": message} if the schema cannot be applied.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

_META: Final = "https://json-schema.org/draft/2020-12/schema"
_MOST_FOUND: Final = 5_000
_LARGEST_PATTERN: Final = 2**20  # bytes of a compiled regular expression


def main() -> None:
    folder, seconds, memory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    limits = {resource.RLIMIT_CPU: seconds, resource.RLIMIT_AS: memory, resource.RLIMIT_CORE: 0}
    for limit, wanted in limits.items():
        hard = resource.getrlimit(limit)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(limit, (value, value))
    sys.path.append(folder)
    lines = sys.stdin.buffer.read().splitlines()
    answer = _of_definition(*map(json.loads, lines)) if len(lines) > 1 else _of_schema(json.loads(lines[0]))
    sys.stdout.write(json.dumps(answer))


def _of_definition(schema: Any, value: Any) -> dict[str, Any]:
    try:
        validator = _validator(schema)
    except ValueError as error:
        return {"unusable": _message(error)}
    return _listed(validator.iter_errors(value))


def _of_schema(schema: Any) -> dict[str, Any]:
    """Return what is wrong with a schema: by the meta-schema, or else the first obstacle to its use."""
    declared = schema.get("$schema", _META)
    if declared not in (_META, f"{_META}#"):
        return _as_answer([(["$schema"], f"expected {_META}: other drafts are not supported")])
    answer = _listed(_validator({"$ref": _META}).iter_errors(schema))
    if answer["found"]:
        return answer
    try:
        _validator(schema)
    except ValueError as error:
        return _as_answer([(list(getattr(error, "instance_path", ())), _message(error))])
    return answer


def _validator(schema: Any) -> Any:
    """Return a validator that fetches nothing and whose regular expressions take linear time."""
    import jsonschema_rs

    return jsonschema_rs.Draft202012Validator(
        schema,
        mask="the value",
        retriever=_refuse,
        pattern_options=jsonschema_rs.RegexOptions(size_limit=_LARGEST_PATTERN),
    )


def _refuse(uri: str) -> Any:
    message = f"{uri} is not in the schema, and nothing is fetched"
    raise ValueError(message)


def _message(error: ValueError) -> str:
    message: str = getattr(error, "message", None) or str(error)
    if message.endswith('is not a "regex"'):
        return "not a regular expression, or one with lookaround or backreferences, or one that is too large"
    return message.rpartition("ValueError: ")[2]


def _listed(errors: Iterable[Any]) -> dict[str, Any]:
    """Return the errors, each once: a schema may state the same in several places."""
    rest = iter(errors)
    first = [(list(error.instance_path), _message(error)) for error in islice(rest, _MOST_FOUND)]
    distinct = list({json.dumps(found): found for found in first}.values())
    return _as_answer(distinct, sum(1 for _ in rest))


def _as_answer(found: list[tuple[list[Any], str]], more: int = 0) -> dict[str, Any]:
    return {"found": found, "more": more}


if __name__ == "__main__":
    main()
