"""JMESPath and URLs with templates: valid ones, invalid ones, and arbitrary text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.definition.rules.expressions import explain_jmespath, is_http_url


@pytest.mark.parametrize(
    "expression",
    [
        "a",
        "a.b[0].c[*] | [?d == `1`].{x: y, z: w}",
        "status == `success`",
        'status == `"success"`',
        "a == `it's`",
        "a == ` spaced`",
        "'`raw`' == \"`quoted`\"",
        "a == `b\\`c`",
        "sort_by(items, &price)[-1].name",
        " && ".join(["a"] * 100),
        ".".join(["a"] * 1000),
    ],
)
def test_jmespath_passes(expression: str) -> None:
    """Literals without quotes too, and without the library's warning (an error in this suite)."""
    assert explain_jmespath(expression) is None


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("a.", "it ends too early"),
        ("[", "it ends too early"),
        ("a b", '"b" is not expected'),
        ("a === b", '"=" is not expected'),
        ("a == `b", '"`b" is not expected'),
        ("'a", '"\'a" is not expected'),
        ("{{a}}", '"{" is not expected'),
        ("#", '"#" is not expected'),
        ("a[" + "9" * 5000 + "]", "it can't be read"),
        ("(" * 65 + "a" + ")" * 65, "it is nested more than 64 levels deep"),
        ("!" * 10_000 + "a", "it is nested too deeply"),
        ("a" * 16_385, "it is longer than 16384 characters"),
    ],
)
def test_invalid_jmespath_is_explained(expression: str, why: str) -> None:
    assert explain_jmespath(expression) == why


@given(st.text(alphabet="abc.[]{}()*?|&!=<>@,:`'\"\\ 019-", max_size=30))
def test_any_text_is_jmespath_or_explained(text: str) -> None:
    """No error and no warning comes out of the library, and an explanation is one short line."""
    assert_explained(explain_jmespath(text))


@pytest.mark.parametrize(
    "text", ["[*]", "!", "[?", "`[", "(", "{a:", "a.", "a|", "`a`==", "'", "\\", "&", "a[0]"]
)
def test_long_expressions_cost_little(text: str) -> None:
    """They are refused by length or depth, or parsed: 16,000 characters in a fraction of a second."""
    start = time.thread_time()
    assert_explained(explain_jmespath(text * (16_000 // len(text))))
    assert explain_jmespath(text * 2**19) == "it is longer than 16384 characters"
    assert time.thread_time() - start < 5


def assert_explained(reason: str | None) -> None:
    if reason is not None:
        assert reason.startswith("it ") or reason.endswith(" is not expected")
        assert reason.isprintable()
        assert len(reason) < 100


@pytest.mark.parametrize(
    "url",
    [
        "http://a",
        "HTTPS://A.example/x?y=z#w",
        "https://user:secret@a.example:8443/x",
        "http://127.0.0.1:1/",
        "http://[::1]:80/x",
        "https://münchen.example/straße",
        "https://a.example/{id}?q=a|b",
        "https://a.example/users/{{id}}?a={{b}}&c=d e",
        "{{url}}",
        "{{ order.url }}",
        "{{base}}/x",
        "{{a}}{{b}}",
        "{{scheme}}://a.example",
        "http{{s}}://a.example",
        "https:{{rest}}",
        "https://{{host}}",
        "https://{{host}}:{{port}}/{{path}}",
        "https://a.{{domain}}.example:80{{port}}/",
        "https://a.example/{{ a b }}?{{c}}",
    ],
)
def test_a_url_passes(url: str) -> None:
    """With a template in any part of it."""
    assert is_http_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a",
        "/x",
        "//a.example",
        "a.example",
        "ftp://a.example",
        "javascript:alert(1)",
        "http:/a",
        "http:a",
        "http://",
        "https:///x",
        "http://:80",
        "http://a:x",
        "http://a:65536",
        "http://a:" + "9" * 5000,
        "http://[::1",
        "http://[x]",
        "http://a b",
        "http://a.example/a b",
        "http://a.example/?a\tb",
        "http://a.example/?a\nb c",
        " http://a",
        "http://a\n",
        "http://a\x00",
        "http://a<b>",
        "ftp://{{host}}",
        "x{{url}}",
        "{{a}} {{b}}",
        "{{open",
    ],
)
def test_an_invalid_url_does_not_pass(url: str) -> None:
    assert not is_http_url(url)


@given(st.text(alphabet="htps:/{}@[]. ab0#?\\\n", max_size=30))
def test_any_text_is_a_url_or_not(text: str) -> None:
    """No error is raised, and a URL has a host or a template."""
    if is_http_url(text):
        assert "://" in text or "{{" in text
