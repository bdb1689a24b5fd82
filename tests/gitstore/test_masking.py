"""Secrets in what leaves access control, against cases that the author of the code did not write."""

from __future__ import annotations

import json
import random
import re
import string
from typing import Any

import pytest

from gitstore.diff.summary import summary_of
from gitstore.masking import HIDDEN, LONGEST, masked, masked_text
from gitstore.model import Rules
from tests.service.masking_cases import HARMLESS, SECRETS, Case

STEP = re.compile(r"\[([^\]]*)\]|([^.\[\]]+)")
ALNUM = string.ascii_letters + string.digits


def drawn(length: int, seed: int, alphabet: str = ALNUM) -> str:
    return "".join(random.Random(seed).choices(alphabet, k=length))  # noqa: S311


def at_its_place(case: Case) -> Any:
    """Build the mappings and lists around the value of a case."""
    value: Any = case.value
    for step in reversed(list(STEP.finditer(case.where))):
        name, is_neighbour, neighbour = (step[1] or "").partition("=")
        if is_neighbour:
            value = [{name: neighbour, **value}]
        elif name.isdigit():
            value = [value]
        else:
            value = {step[2] or name: value}
    return value


def shown(case: Case) -> Any:
    value = masked(at_its_place(case))
    while isinstance(value, (dict, list)):
        value = value[-1] if isinstance(value, list) else list(value.values())[-1]
    return value


def test_secrets_are_masked_and_nothing_else() -> None:
    """At least 98 of 100 secrets, and at most 3 of 100 other values."""
    missed = [case for case in SECRETS if shown(case) == case.value]
    hidden = [case for case in HARMLESS if shown(case) != case.value]
    assert len(missed) <= 0.02 * len(SECRETS), missed
    assert len(hidden) <= 0.03 * len(HARMLESS), hidden


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (
            "git clone https://ada:{}@git.example.test/a.git",
            "git clone https://ada:***@git.example.test/a.git",
        ),
        ("mysql://root:{}@db/app?charset=utf8", "mysql://root:***@db/app?charset=utf8"),
        ("GET /a?access_token={}&page=2", "GET /a?access_token=***&page=2"),
        ("host=db password='{} x' dbname=a", "host=db password='***' dbname=a"),
        ('{{"user": "ada", "db_password": "{}"}}', '{{"user": "ada", "db_password": "***"}}'),
        ('sent "{{\\"apiKey\\": \\"{}\\"}}"', 'sent "{{\\"apiKey\\": \\"***\\"}}"'),
        ("curl -H 'X-Api-Key: {}' https://a.test/", "curl -H 'X-Api-Key: ***' https://a.test/"),
        ("tool --client-secret {} --verbose", "tool --client-secret *** --verbose"),
        ("API_TOKEN={} make deploy", "API_TOKEN=*** make deploy"),
        ("token of Charge: {} → {{{{ secret('X') }}}}", "token of Charge: *** → {{{{ secret('X') }}}}"),
    ],
)
def test_only_the_secret_in_a_text_is_replaced(text: str, left: str) -> None:
    """The text around it still tells what happened; whatever the secret is."""
    for secret in ("hunter2", "Tr0ub4dor.3", "9f8d7c6b5a", drawn(40, 1)):
        assert masked_text(text.format(secret)) == left.format()


def test_values_are_judged_by_their_keys_and_by_the_names_beside_them() -> None:
    """At any depth; what is below a key with the word of a secret is not hidden for it."""
    value = {
        "Get Access Token": {"target": "v2", "maxTokens": 4096},
        "headers": [{"name": "X-Auth-Token", "value": "short"}, {"name": "Accept", "value": "text/html"}],
        "env": [{"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": "a", "key": "password"}}}],
        "pin": {"passcode": 1234, "retries": 3, "password": None, "secret": True},
        "permissions": {"id-token": "write"},
    }
    value_masked = masked(value)
    assert value_masked["headers"][0]["value"] == value_masked["pin"]["passcode"] == HIDDEN
    value["headers"][0]["value"] = value["pin"]["passcode"] = HIDDEN  # type: ignore[index]
    assert value_masked == value


def test_random_texts_are_told_from_names_and_identifiers() -> None:
    """Keys drawn from the alphabets of tokens, against camel case, digests, paths and UUIDs."""
    alphabets = (ALNUM, ALNUM + "-_", ALNUM + "+/")
    tokens = [drawn(length, seed, alphabets[seed % 3]) for seed in range(60) for length in (32, 40, 64)]
    assert sum(masked_text(f"it is {token}") == "it is ***" for token in tokens) >= 0.95 * len(tokens)
    names = [
        "getOrCreateOAuth2ClientForTenant3AndRegionEu",
        "feature/ABC-123-fix-Login-v2-for-Team7",
        drawn(40, 2, "0123456789abcdef"),
        "8c8c5237-b8e3-4b00-8a7a-dce87f436935",
        "s3://Acme-Orders-2024/Exports/Q4/Part-0001.parquet",
        "n8n-nodes-base.googleSheetsTrigger/v2/OperationAppendOrUpdate",
    ]
    assert [masked_text(name) for name in names] == names


def test_a_summary_has_no_secret() -> None:
    token = "gh" + "p_" + drawn(36, 3)
    old, new = ({"jobs": {f"push {token}": {"steps": [{"name": "a", "run": run}]}}} for run in "xy")
    assert token not in (said := summary_of(old, new, Rules.ANY))
    assert HIDDEN in said


def test_long_texts_are_clipped_and_masked_to_their_end() -> None:
    text = json.dumps(
        masked({"message": "a b " * LONGEST + "password=hunter2", "cut": "-----BEGIN PRIVATE KEY-----" + "a"})
    )
    assert len(text) < LONGEST + 200
    assert "hunter2" not in text
    assert '"cut": "***"' in text
