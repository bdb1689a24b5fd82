"""What people are shown of a difference: no secret in any form, and files as git tells them apart."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.definition.document import dump
from gitstore.diff.masking import Masks, is_secret_key, masked
from gitstore.diff.structure import Diff, diff
from gitstore.diff.summary import summary
from gitstore.diff.text import text_diff
from gitstore.drafts import File
from gitstore.model import Limits
from tests.conftest import examples
from tests.gitstore.graphs import graph, node

LIMITS = Limits()


# Secrets

SECRET_KEYS = [
    "token",
    "apiKey",
    "X-API-Key",
    "client_secret",
    "Authorization",
    "dbPassword",
    "Set-Cookie",
    "auth",
]


@pytest.mark.parametrize("key", SECRET_KEYS)
def test_keys_that_look_like_secrets_are_known(key: str) -> None:
    assert is_secret_key(key)


@pytest.mark.parametrize("key", ["url", "author", "label", "monkey", "keyboard", "id", "passage"])
def test_keys_of_other_things_are_not_masked(key: str) -> None:
    assert not is_secret_key(key)


MASKED: list[tuple[Any, Any]] = [
    ({"token": "S"}, {"token": "[secret 1]"}),
    ({"secrets": ["S", 5, True, None, ""]}, {"secrets": ["[secret 1]", "[secret 2]", True, None, ""]}),
    ({"headers": '{"Cookie": "S", "Accept": "*"}'}, {"headers": '{"Cookie": "[secret 1]", "Accept": "*"}'}),
    ({"headers": "Authorization: Bearer S\nAccept: *"}, {"headers": "Authorization: [secret 1]\nAccept: *"}),
    ({"body": '{"n": {{n}}, "token": "S"}'}, {"body": '{"n": {{n}}, "token": "[secret 1]"}'}),
    ({"url": "https://u:p@h/?api_key=S&x=1"}, {"url": "https://[secret 1]@h/?api_key=[secret 2]&x=1"}),
    ({"url": "https://h/{{path}}?x={{y}}"}, {"url": "https://h/{{path}}?x={{y}}"}),
    ([{"name": "Authorization", "value": "S"}], [{"name": "Authorization", "value": "[secret 1]"}]),
    ({"label": "Get the token", "text": "no: secret"}, {"label": "Get the token", "text": "no: secret"}),
]  # fmt: skip


@pytest.mark.parametrize(("value", "shown"), MASKED)
def test_secrets_are_masked_where_they_stand(value: Any, shown: Any) -> None:
    """Under their keys, in JSON in a text, in URLs, in pairs of name and value; and nothing else is."""
    assert Masks().value(value) == shown


@pytest.mark.parametrize(
    "text", [r'{"tok\u0065n": "S\u0045CRET"}', '{"token": {"a": "SECRET"}}', '{"token": 12345678}']
)
def test_a_text_whose_secrets_cannot_be_told_from_the_rest_is_masked_as_a_whole(text: str) -> None:
    """Escapes in keys and secrets that are not strings hide nothing."""
    (shown,) = Masks().value({"headers": text}).values()
    assert shown.startswith("[secret ")


def test_a_mask_tells_that_a_secret_changed() -> None:
    """Equal secrets have equal masks, others have others, in both definitions."""
    a, b = masked({"token": "one", "other": {"token": "two"}}, {"token": "two", "other": {"token": "two"}})
    (change,) = diff(a, b).other
    assert (change.pointer, change.before, change.after) == ("/token", "[secret 1]", "[secret 2]")


_SECRET = st.from_regex(r"SECRET[ a-zA-Z0-9:#'\"\\{}&@é\u2028\u0085-]{0,12}[A-Z0-9]{6}END", fullmatch=True)
_KEPT = st.sampled_from(["plain", "https://h/?x=1", "two\nlines", "# hash", ""])


def _hidden(secret: str) -> st.SearchStrategy[Any]:
    """A part of a definition that hides `secret`."""
    header = {"Authorization": f"Bearer {secret}", "Accept": "*/*"}
    url = "".join(char for char in secret if char.isalnum())
    return st.sampled_from(
        [
            {"token": secret},
            {"a": {"apiKey": [secret, {"b": secret}]}},
            {"headers": json.dumps(header)},
            {"headers": json.dumps(header, indent=2)},
            {"headers": header},
            {"headers": [{"name": "Authorization", "value": secret}]},
            {"body": json.dumps({"x": {"password": {"y": [secret]}}})},
            {"secret": f"first line\n{secret}\n  last {secret}\n"},
            {"url": f"https://user:{url}@host/?token={url}&x=1"},
        ]
    )


@st.composite
def _with_secrets(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[str]]:
    secrets = draw(st.lists(_SECRET, min_size=1, max_size=3))
    made = []
    for _ in range(2):
        configs = [draw(_hidden(draw(st.sampled_from(secrets)))) | {"kept": draw(_KEPT)} for _ in range(2)]
        made.append(graph(*(node(f"n{index}", **config) for index, config in enumerate(configs))))
    return made, secrets


def _leaks(shown: str, secrets: list[str]) -> list[str]:
    parts = {part for secret in secrets for part in (secret, secret[-9:], json.dumps(secret)[1:-1])}
    return [part for part in parts if part in shown]


def _told(found: Diff) -> Any:
    """All that a difference tells."""
    return {**asdict(replace(found, delta=None)), "delta": repr(found.delta)}


@examples(200)
@given(_with_secrets(), st.sampled_from(["workflow.yaml", "workflow.json"]))
def test_no_form_of_a_difference_tells_a_secret(
    case: tuple[list[dict[str, Any]], list[str]], name: str
) -> None:
    """Not as values, not in the sentence, not in the text of the files; and the masks change no finding."""
    (a, b), secrets = case
    found = diff(*masked(a, b))
    assert _leaks(json.dumps(_told(found), default=str) + summary(found), secrets) == []
    assert found.empty == diff(a, b).empty
    assert summary(found) == summary(diff(a, b))
    old, new = (File(name, dump(value, name)) for value in (a, b))
    text = text_diff(old, new, LIMITS)
    assert _leaks(text, secrets) == []
    assert bool(text) == (old.raw != new.raw)


HAND_WRITTEN = """\
# token: SECRET-0
name: Orders # from https://user:SECRET-1@host/
nodes:
- id: a
  data:
    config:
      token: "SECR\\u0045T-2" # why
      apiKey: >-
        folded SECRET-3
        SECRET-4
      flow: {password: 'SECRET-5', pwd: 12345, kept: [1, "two"]}
      headers: |
        {
          "Authorization": "SECRET-6",

          "Accept": "kept"
        }
      privateKey: |
        -----BEGIN
        SECRET-7
      authorization: &anchor several
        SECRET-8 lines
      again: {token: *anchor}
      ? secret
      : !!str SECRET-9
      url: "https://host/?access_token=SECRET-a&kept=1"
"""


def test_secrets_in_a_file_are_masked_however_they_are_written() -> None:
    """Every line stays where it is, and what is no secret as it was."""
    text = text_diff(File("workflow.yaml", b""), File("workflow.yaml", HAND_WRITTEN.encode()), LIMITS)
    assert "SECR" not in text
    assert "12345" not in text
    assert text.count("\n+") == HAND_WRITTEN.count("\n") + 1
    for kept in (
        "name: Orders # from https://[secret ",
        'kept: [1, "two"]',
        '"Accept": "kept"',
        "&kept=1",
        "# why",
    ):
        assert kept in text
    assert "\n+        {\n" in text


def test_a_file_that_does_not_parse_has_a_text_diff_all_the_same() -> None:
    """An import may hold one. Its secrets are masked line by line."""
    broken = b"nodes: [\n  {token: SECRET-1, x: 1}\nurl: https://u:SECRET-2@h\n\xff\n"
    text = text_diff(File("workflow.yaml", broken), File("workflow.yaml", b"nodes: []\n"), LIMITS)
    assert "-nodes: [\n" in text
    assert "SECRET" not in text


# The text

_LINES = st.lists(st.sampled_from(["a", "b", "c", "d", "", "  e: 1"]), max_size=25)


@examples(60)
@given(_LINES, _LINES, st.booleans(), st.booleans())
def test_git_applies_a_text_diff(
    tmp_path_factory: pytest.TempPathFactory, old: list[str], new: list[str], open_old: bool, open_new: bool
) -> None:
    """It is git's format, to the line without a line break at the end."""
    before, after = (
        "\n".join(lines) + ("" if is_open or not lines else "\n")
        for lines, is_open in ((old, open_old), (new, open_new))
    )
    patch = text_diff(File("workflow.yaml", before.encode()), File("workflow.yaml", after.encode()), LIMITS)
    if before == after:
        assert patch == ""
        return
    folder: Path = tmp_path_factory.mktemp("patched")
    (folder / "workflow.yaml").write_bytes(before.encode())
    subprocess.run(["git", "apply", "-"], cwd=folder, input=patch.encode(), check=True, capture_output=True)
    assert (folder / "workflow.yaml").read_bytes() == after.encode()


def test_a_file_under_another_name_was_renamed() -> None:
    """As git says it."""
    old, new = File("workflow.yml", b"a: 1\n"), File("workflow.yaml", b"a: 2\n")
    assert text_diff(old, new, LIMITS) == (
        "diff --git a/workflow.yml b/workflow.yaml\n"
        "rename from workflow.yml\nrename to workflow.yaml\n"
        "--- a/workflow.yml\n+++ b/workflow.yaml\n"
        "@@ -1 +1 @@\n-a: 1\n+a: 2\n"
    )
