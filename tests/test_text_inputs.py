"""Whatever text comes in from outside costs CPU time in proportion to its length.

Each input of INPUTS is fed with repetitions that make careless patterns quadratic. It runs in a child under a
limit of CPU time, so that a pattern that is quadratic after all ends the child and names itself, instead of
holding the test run.
"""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from io import BytesIO
from statistics import median
from typing import Any, TypeVar

import pytest
from dulwich.protocol import pkt_line
from flask import Request
from pydantic import ValidationError
from werkzeug.test import EnvironBuilder

from gitstore import names
from gitstore.definition import document
from gitstore.definition.editing import edit
from gitstore.definition.quoting import MOST_ECHOED
from gitstore.diff.sequences import text_diff
from gitstore.diff.structure import diff
from gitstore.diff.summary import summary
from gitstore.drafts import Content, File, to_file
from gitstore.errors import GitstoreError, MalformedError
from gitstore.masking import masked
from gitstore.model import Limits, Problem, Rules
from gitstore.names import is_slug
from gitstore.push.request import ZERO, read_request
from service import access, errors, logs, lookup
from service.api import http
from service.api.drafts import SaveDraft
from service.context import request_id_from
from service.inputs import CreateToken, CreateWorkflow, validated
from service.ui import rendering
from service.ui.graph import Graph, draw
from service.ui.texts import Row, highlighted, side_by_side
from webhooks import forges, sources
from webhooks.addresses import Allowed, target_of
from webhooks.egress import Egress
from webhooks.forges import Forge
from webhooks.secrets import ID, SIGNATURE, TIMESTAMP, sign

pytestmark = pytest.mark.slow

T = TypeVar("T")


def edited(text: str) -> None:
    """Edit YAML and JSON around and in a text, whatever it is."""
    for around in ("a: 1\nb: {text}\nc: 1\n", "a: 1\nb:\n  {text}\n", '{"a": 1, "b": {text}}'):
        is_json = around.startswith("{")
        raw = around.replace("{text}", json.dumps(text) if is_json else text).encode()
        old = document.parse(raw, "workflow.json" if is_json else "workflow.yaml", Rules.ANY, LIMITS)
        if old.value is None:  # a tag: there is no value to edit
            continue
        for new in ({**old.value, "a": text}, {"b": old.value["b"]}, {**old.value, "b": [text, text]}):
            edit(old, new, "workflow.json" if is_json else "workflow.yaml", Rules.ANY, LIMITS)


TIMES = 16
MOST_GROWTH = 48
"""Times as much CPU as a text may cost that is TIMES as long."""

SHORT = 1_000  # characters, so that a quadratic pattern takes seconds for TIMES as many
COUNT = 250  # items, likewise
FLOOR = 0.002  # seconds; less cannot be distinguished from noise
SECONDS = 60  # of CPU time for a child

LIMITS = Limits()
NOW = datetime(2030, 1, 1, tzinfo=UTC)
EGRESS = Egress()
SECRET = "whsec_" + "a" * 32

SHAPES = (
    "a", " ", "\n", " \n", "\\", "\"", "'", "`", "{{", "{{a", "{{}}", "[", "{", "}", "(", "&a ", "*a ",
    "#", "- ", "- a\n", "? ", "a: ", "a: b\n", "!", "|\n", "%TAG", "a,", "&a=", "a=;", "/", "a.", "0",
    "://", "a://b:", "a@", ";", "\u2028", "\u00e9", "\ud83d\ude00", "Bearer ", "password='", "gst_",
    "\\\"", "\"a\",", "\"a\":{", "[1,", "a||", "W/\"", "key: \"", "--a\r\n",
)  # fmt: skip


def node(kind: str, **config: Any) -> dict[str, Any]:
    return {"nodes": [{"id": "a", "type": kind, "data": {"label": "x", "config": config}}]}


def parsed(value: dict[str, Any]) -> None:
    """Through the whole of a definition's checks."""
    document.parse(json.dumps(value).encode(), "workflow.json", Rules.MESHHOOK, LIMITS)


def yaml(text: str) -> File:
    return File("workflow.yaml", text.encode())


def refused(text: str) -> None:
    """A refusal that repeats it, as problem+json and in a log line."""
    problem = Problem("x", text, "/" + text)
    errors.problem(MalformedError(text, problems=[problem], name=text))
    logs.hide_secrets(None, "", {"event": text, "facts": {text: [text]}})


def unknown_key(text: str) -> None:
    for model, known in ((SaveDraft, {}), (CreateWorkflow, {"slug": text}), (CreateToken, {"name": text})):
        try:
            validated(model, {**known, text: text})
        except GitstoreError as error:
            errors.problem(error)


def header(name: str, read: Callable[[Request], object]) -> Callable[[str], object]:
    """`read` of a request with the header `name`, as a server passes it on: Latin-1 on one line."""

    def asked(text: str) -> None:
        value = text.encode("latin-1", "replace").decode("latin-1").replace("\r", "").replace("\n", "")
        read(Request({**EnvironBuilder().get_environ(), name: value}))

    return asked


def body(content_type: str, read: Callable[[Request], object]) -> Callable[[str], object]:
    def asked(text: str) -> None:
        raw = text.encode()
        environ = EnvironBuilder(method="POST", content_type=content_type).get_environ()
        request = Request({**environ, "wsgi.input": BytesIO(raw), "CONTENT_LENGTH": str(len(raw))})
        request.max_form_memory_size = 3 * LIMITS.definition
        read(request)

    return asked


def pushed(text: str) -> None:
    """As ref names, as capabilities, as `shallow` lines, and as what a refusal repeats."""
    ref = text.encode()[:1000]
    command = ZERO + b" " + b"a" * 40 + b" refs/tags/" + ref
    lines = [b"shallow " + line for line in text.encode().split(b"\n")[:100]]
    packets = b"".join(pkt_line(line[:60_000]) for line in [*lines, command + b"\0" + text.encode()[:60_000]])
    with suppress(GitstoreError):
        read_request(BytesIO(packets + pkt_line(None)).read, 10)
    for prefix in (b"refs/tags/", b"refs/heads/drafts/", b"refs/", b""):
        names.parse(prefix + text.encode())
        names.is_ref(prefix + text.encode())
        names.show(prefix + text.encode())


def webhook(text: str) -> None:
    """As a payload, its names, its headers and its signatures; signed, so that it is read."""
    for payload in (text, json.dumps({"ref": text, "before": text, "after": text}), "payload=" + text):
        raw = payload.encode()
        signed = [*sign([SECRET], "a", NOW, raw).items(), ("content-type", "a/b; " + text)]
        with suppress(GitstoreError):
            forges.receive(signed, raw, (SECRET,), Forge.ANY, NOW)
        for name in (SIGNATURE, ID, TIMESTAMP):
            with suppress(GitstoreError):
                forges.receive({**dict(signed), name: text}.items(), raw, (SECRET,), Forge.ANY, NOW)
    for forge, name in (
        (Forge.GITHUB, "x-hub-signature-256"),
        (Forge.GITLAB, "x-gitlab-token"),
        (Forge.BASIC, "authorization"),
    ):
        with suppress(GitstoreError):
            forges.receive([(name, text), ("x-github-event", text)], b"{}", ("s" * 20,), forge, NOW)


def cursors(text: str) -> None:
    readers = (lookup.slug_in, lookup.number_in, lookup.moment_in, lookup.which, lookup.text, lookup.uuid_of)
    for read in readers:
        with suppress(GitstoreError):
            read(text)


def from_a_form(request: Request) -> object:
    return list(request.form.items()), list(request.files.items())


INPUTS: dict[str, dict[str, Callable[[str], object]]] = {
    "definitions": {
        "YAML": lambda text: document.parse(text.encode(), "workflow.yaml", Rules.MESHHOOK, LIMITS),
        "JSON": lambda text: document.parse(text.encode(), "workflow.json", Rules.MESHHOOK, LIMITS),
        "a JSON body": lambda text: document.parse_json(text.encode(), LIMITS),
        "text of either": lambda text: to_file(Content(("{" + text).encode()), None, Rules.MESHHOOK, LIMITS),
        "a URL": lambda text: parsed(node("httpCall", url=text)),
        "the rest of a URL": lambda text: parsed(node("httpCall", url="http://" + text)),
        "an expression": lambda text: parsed(node("transform", expression=text)),
        "names": lambda text: parsed({text: 1, "nodes": [{"id": text, "type": text, "data": {text: text}}]}),
        "comments": lambda text: document.has_comments(text.encode(), "workflow.yaml"),
        "an edit": lambda text: edited(text),
        "writing": lambda text: document.dump({"a": text, text: [text]}, "workflow.yaml"),
    },
    "comparing": {
        "text diff": lambda text: text_diff(yaml(text), yaml("b" + text[::-1])),
        "side by side": lambda text: side_by_side(text, "b" + text[::-1]),
        "a summary": lambda text: summary(diff({"a": text.split(), text: 1}, {"a": [text], text: 2})),
    },
    "pages": {
        "highlighted YAML": lambda text: highlighted(text, "workflow.yaml"),
        "highlighted JSON": lambda text: highlighted(text, "workflow.json"),
        "a drawing": lambda text: draw({"nodes": [{"id": text, "data": {"label": text}}], "edges": []}),
        "cron": lambda text: draw(node("schedule", cron=text)),
        "sentences": lambda text: (rendering.sentence(text), rendering.headline(text)),
        "the log and refusals": refused,
        "the log's traceback": lambda text: logs._escape_controls(None, "", {"": masked(text)}),
    },
    "requests": {
        "unknown keys and values": unknown_key,
        "a cursor, a version, an id": cursors,
        "a slug": is_slug,
        "a query": header("QUERY_STRING", lambda request: list(request.args.items(multi=True))),
        "cookies": header("HTTP_COOKIE", lambda request: request.cookies),
        "Accept": header("HTTP_ACCEPT", lambda request: request.accept_mimetypes.best_match(["a/b", "c/d"])),
        "Content-Type": header("CONTENT_TYPE", lambda request: request.mimetype),
        "If-Match": header("HTTP_IF_MATCH", lambda request: http.expected(request)),
        "If-None-Match": header("HTTP_IF_NONE_MATCH", lambda request: http.not_modified(request, "a")),
        "If-Range, Range, dates": header("HTTP_RANGE", lambda request: (request.range, request.if_range)),
        "Authorization": header("HTTP_AUTHORIZATION", lambda request: request.authorization),
        "a token": access.is_token,
        "a request id": request_id_from,
        "a form": body("application/x-www-form-urlencoded", from_a_form),
        "a form in parts": body("multipart/form-data; boundary=a", from_a_form),
        "a push": pushed,
    },
    "webhooks": {
        "a webhook": webhook,
        "a subscriber's URL": lambda text: target_of("http://" + text),
        "a source's URL": lambda text: sources.split_url("http://" + text, EGRESS),
        "a credential": lambda text: sources.read_credential(text, Forge.GITHUB),
        "a webhook's secret": lambda text: sources.check_secret(text, Forge.ANY),
        "globs of workflows": lambda text: sources.check_globs(text.split()),
        "what may be reached": Allowed.parse,
    },
}  # fmt: skip


def renamed(count: int) -> str:
    """All nodes have the same content, and other ids on the other side."""
    old, new = ({"nodes": [{"id": f"{side}{n}"} for n in range(count)]} for side in "ab")
    return summary(diff(old, new))


def lists(count: int) -> tuple[str, list[Row]]:
    """No item is on one side once, so that there is nothing to align by."""
    a, b = ([n % 7 for n in range(start, start + count)] for start in (0, 3))
    return summary(diff({"a": a}, {"a": b})), side_by_side("\n".join(map(str, a)), "\n".join(map(str, b)))


def containers(count: int) -> Graph:
    """Each in another, with an edge between them."""
    nodes = [
        {"id": f"n{n}", "data": {"isContainer": True, "parentContainer": f"n{n // 2}"}} for n in range(count)
    ]
    return draw({"nodes": nodes, "edges": [{"source": f"n{n}", "target": f"n{n + 1}"} for n in range(count)]})


def cycle(count: int) -> None:
    edges = [{"source": f"n{n}", "target": f"n{(n + 1) % count}"} for n in range(count)]
    value = json.dumps({"nodes": [{"id": f"n{n}"} for n in range(count)], "edges": edges})
    document.parse(value.encode(), "workflow.json", Rules.MESHHOOK, LIMITS)


def unknown_keys(count: int) -> None:
    try:
        validated(SaveDraft, {f"k{n}": n for n in range(count)})
    except GitstoreError as error:
        errors.problem(error)


COUNTED: dict[str, dict[str, Callable[[int], object]]] = {
    "definitions": {
        "expressions": lambda count: parsed({"nodes": node("loop", items="[a, b]")["nodes"] * count}),
        "a cycle": cycle,
    },
    "comparing": {"renamed nodes": renamed, "lists": lists},
    "pages": {"containers": containers},
    "requests": {"unknown keys": unknown_keys},
}
"""What grows by number rather than by length."""


def cost(run: Callable[[T], object], value: T) -> float:
    """Seconds of CPU time; a refusal is as good an answer as any."""
    begun = time.process_time()
    with suppress(GitstoreError, ValidationError, ValueError):
        run(value)
    return time.process_time() - begun


def growth(run: Callable[[T], object], short: T, long: T) -> tuple[float, float]:
    """(cost of `short`, cost of `long`, TIMES as much). Measured again where noise may have been in it."""
    for _ in range(3):
        costly = cost(run, long)
        if costly <= MOST_GROWTH * FLOOR:
            return FLOOR, costly
        cheap = max(median(cost(run, short) for _ in range(5)), FLOOR)
        if costly <= MOST_GROWTH * cheap:
            break
    return cheap, costly


def main(group: str) -> None:
    """Print a line before each measurement, and one for each that grows too fast."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    gc.disable()  # its passes grow with what other inputs left behind
    for name, run in INPUTS[group].items():
        for shape in SHAPES:
            print(f"measuring {name}: {shape!r}", flush=True)
            short, long = ((shape * length)[:length] for length in (SHORT, TIMES * SHORT))
            report_growth(f"{name}: {shape!r}", *growth(run, short, long))
        gc.collect()
    for name, count in COUNTED.get(group, {}).items():
        print(f"measuring {name}", flush=True)
        report_growth(name, *growth(count, COUNT, TIMES * COUNT))
    print("done", flush=True)


def report_growth(what: str, cheap: float, costly: float) -> None:
    if costly > MOST_GROWTH * cheap:
        print(f"too fast: {what}: {cheap:.4f} s, {costly:.4f} s for {TIMES} times as much")


@pytest.mark.parametrize("group", INPUTS)
def test_cost_is_in_proportion_to_length(group: str) -> None:
    """Sixteen times the text costs at most 48 times the CPU, whatever is repeated in it."""
    command = [sys.executable, "-m", __name__, group]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = ran.stdout.splitlines()
    assert lines[-1:] == ["done"], f"ended with {ran.returncode} at: {lines[-1:]}\n{ran.stderr[-2000:]}"
    assert [line for line in lines if line.startswith("too fast")] == []


LONG = "x" * 100_000


@pytest.mark.parametrize(
    "refuse",
    [
        lambda: validated(SaveDraft, {LONG: 1}),
        lambda: document.parse_json(f'{{"{LONG}": 1, "{LONG}": 2}}'.encode(), LIMITS),
        lambda: document.parse(f"a: *{LONG}".encode(), "workflow.yaml", Rules.ANY, LIMITS),
        lambda: document.parse(f"a: !{LONG} b".encode(), "workflow.yaml", Rules.MESHHOOK, LIMITS),
        lambda: lookup.which(LONG),
        lambda: lookup.id_of(None, LONG),  # type: ignore[arg-type] # it is no slug, so nobody is asked
        lambda: target_of("http://" + LONG),
    ],
)
def test_a_refusal_repeats_little_of_what_was_sent(refuse: Callable[[], object]) -> None:
    """At most 200 characters, in its message and in each of its problems."""
    with pytest.raises(GitstoreError) as caught:
        refuse()
    answer = errors.problem(caught.value).get_data(as_text=True)
    assert "x" * (MOST_ECHOED + 1) not in answer
    assert "x" * (MOST_ECHOED + 1) not in caught.value.message


if __name__ == "__main__":
    main(sys.argv[1])
