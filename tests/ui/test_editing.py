"""The editor without a browser: saves, refusals and conflicts; no text is lost or overwritten."""

from __future__ import annotations

import gzip
import json
import re
from typing import Any

import pytest

from service import assets
from tests.service.api.conftest import House, definition, yaml
from tests.ui.visitor import HOST, Answer, Visitor, visitor

EDIT = "/ui/workflows/order-sync/edit"
ONE = "/ui/workflows/order-sync"


@pytest.fixture
def draft(ann: Visitor) -> None:
    """order-sync with an open draft of YAML."""
    ann.api.create(definition=yaml().decode())


def text_of(visitor: Visitor, which: str = "draft") -> str:
    return str(visitor.api.get(f"/workflows/order-sync/versions/{which}/definition").text)


def save(visitor: Visitor, form: Answer, text: str, **more: str) -> Answer:
    page = form.page
    seen = {name: page.value(name) for name in ("etag", "base", "began")}
    return visitor.post(EDIT, **{**seen, "definition": text, "message": "", **more})


@pytest.mark.usefixtures("draft")
def test_text_is_saved_byte_for_byte(ann: Visitor) -> None:
    """Browsers send CRLF: the file keeps its own line ends, comments and spaces."""
    form = ann.get(EDIT)
    assert form.page.value("definition") == yaml().decode()
    text = yaml("https://b.example/").decode() + "\n# 'é' <b>&amp;\n\n"
    answer = save(ann, form, text.replace("\n", "\r\n"), message="Another warehouse")
    assert (answer.status, answer.location) == (303, ONE)
    assert text_of(ann) == text
    assert ann.api.get("/workflows/order-sync/versions/draft").json["message"] == "Another warehouse"


def test_a_file_with_crlf_keeps_it(ann: Visitor) -> None:
    text = yaml().decode().replace("\n", "\r\n")
    ann.api.create(definition=text)
    form = ann.get(EDIT)
    assert save(ann, form, form.page.value("definition") + "# more\r\n").status == 303
    assert text_of(ann) == text + "# more\r\n"


@pytest.mark.usefixtures("draft")
def test_a_leading_line_break_is_kept(ann: Visitor) -> None:
    """HTML drops the first line break of a textarea, so the page adds one."""
    assert save(ann, ann.get(EDIT), "\n\n" + yaml().decode()).status == 303
    assert ann.get(EDIT).html.count("<textarea") == 1
    assert "\n\n\n# The warehouse" in ann.get(EDIT).html


@pytest.mark.usefixtures("draft")
def test_an_empty_message_is_generated(ann: Visitor) -> None:
    save(ann, ann.get(EDIT), yaml("https://b.example/").decode())
    assert ann.api.get("/workflows/order-sync/versions/draft").json["message"] == "url of call changed"


@pytest.mark.usefixtures("draft")
@pytest.mark.parametrize(
    "text", ["", "nodes: [", "a: 1\na: 2\n", "<script>", "nodes: []\n---\nnodes: []", "[1]", "{" * 100]
)
def test_text_that_does_not_parse_is_shown_again_with_its_problems(ann: Visitor, text: str) -> None:
    """Nothing is saved or lost, and the answered form can be sent again."""
    before = text_of(ann)
    form = ann.get(EDIT)
    answer = save(ann, form, text, message="My <message>")
    assert answer.status == 422
    assert answer.page.value("definition") == text
    assert answer.page.value("message") == "My <message>"
    assert "Not saved." in answer.page.text
    assert text_of(ann) == before
    assert save(ann, answer, yaml("https://b.example/").decode()).status == 303


@pytest.mark.usefixtures("draft")
def test_a_definition_that_is_too_large_is_refused_and_kept_in_the_form(ann: Visitor) -> None:
    text = "# " + "x" * 2**20
    answer = save(ann, ann.get(EDIT), text)
    assert answer.status == 413
    assert answer.page.value("definition") == text
    assert ann.post(EDIT, definition="x" * 5_000_000).status == 413


@pytest.mark.usefixtures("draft")
def test_a_large_definition_is_saved(ann: Visitor) -> None:
    """Of 1 MiB, three times as large in a form."""
    text = yaml().decode() + "".join(f"# {'é' * 100}\n" for _ in range(4000))
    assert save(ann, ann.get(EDIT), text).status == 303
    assert text_of(ann) == text


@pytest.mark.usefixtures("draft")
def test_a_draft_with_problems_is_saved_and_they_are_listed(ann: Visitor) -> None:
    assert save(ann, ann.get(EDIT), "nodes:\n  - {id: a, type: httpCall, data: {config: {}}}\n").status == 303
    page = ann.get(ONE).page
    assert "2 problems to fix before publishing" in page.text
    assert f"{EDIT}#L2" in page.links()
    assert "#d0" in page.links()
    assert ("post", f"{ONE}/publish") not in list(page.forms())


def test_without_a_draft_the_editor_starts_from_the_current_version(ann: Visitor) -> None:
    ann.api.create()
    ann.api.publish()
    ann.api.publish(url="https://two.example/")
    ann.api.put("/workflows/order-sync/current", json={"version": 1})
    form = ann.get(EDIT)
    assert "Editing v1, the current version" in form.page.text
    assert form.page.value("definition") == text_of(ann, "1")
    assert save(ann, form, yaml("https://three.example/").decode()).status == 303
    assert ann.api.post("/workflows/order-sync/versions/publish").status_code == 201


# Conflicts


@pytest.fixture
def bob(house: House) -> Visitor:
    return visitor(house, "publisher")


def choose(visitor: Visitor, conflict: Answer, side: str) -> Answer:
    """Choose a side for all conflicts of the page."""
    names = ("etag", "base", "began", "first", "theirs", "message", "definition")
    fields = {name: conflict.page.value(name) for name in names}
    choices = {radio.attributes["name"]: side for radio in conflict.page.all("input", type="radio")}
    return visitor.post(f"{ONE}/merge", **fields, **choices)


@pytest.mark.usefixtures("draft")
def test_changes_of_different_fields_are_merged(ann: Visitor, bob: Visitor) -> None:
    """The page shows the text, an edit of theirs, with the message that was typed; saving it is one click."""
    form = ann.get(EDIT)
    theirs = yaml().decode().replace("label: Hook", "label: Paid").replace("# The", "# Bob: the")
    assert save(bob, bob.get(EDIT), theirs).status == 303
    mine = yaml("https://ann.example/").decode()
    conflict = save(ann, form, mine, message="Mine <3")
    assert conflict.status == 412
    assert (
        "saved the draft just now, while you were editing. Your changes are not saved" in conflict.page.text
    )
    assert "changed: label of hook changed" in conflict.page.text
    expected = theirs.replace("https://a.example/", "https://ann.example/")
    assert conflict.page.value("definition") == expected
    assert conflict.page.value("message") == "Mine <3"
    assert save(ann, conflict, expected, message="Mine <3").status == 303
    assert text_of(ann) == expected


@pytest.mark.usefixtures("draft")
@pytest.mark.parametrize(
    ("side", "url"), [("ours", "https://ann.example/"), ("theirs", "https://bob.example/")]
)
def test_the_same_field_is_chosen(ann: Visitor, bob: Visitor, side: str, url: str) -> None:
    """Nothing is shown as a result before; the base is shown beside both values."""
    form = ann.get(EDIT)
    save(bob, bob.get(EDIT), yaml("https://bob.example/").decode())
    mine = yaml("https://ann.example/").decode().replace("label: Hook", "label: Paid")
    conflict = save(ann, form, mine, message="Mine")
    assert "1 field changed on both sides" in conflict.page.text
    assert "Node call: config / url Before https://a.example/" in conflict.page.text
    assert ("post", EDIT) not in list(conflict.page.forms())
    undecided = choose(ann, conflict, "neither")
    assert (undecided.status, "not chosen" in undecided.page.text) == (200, True)
    result = choose(ann, undecided, side)
    expected = yaml(url).decode().replace("label: Hook", "label: Paid")
    assert result.page.value("definition") == expected
    assert result.page.value("message") == "Mine"
    assert save(ann, result, expected).status == 303
    assert text_of(ann) == expected


@pytest.mark.usefixtures("draft")
def test_a_further_save_during_the_conflict_is_not_overwritten(ann: Visitor, bob: Visitor) -> None:
    """Choices about an older state do not count any more; a result is merged once more."""
    form = ann.get(EDIT)
    save(bob, bob.get(EDIT), yaml("https://bob.example/").decode())
    mine = yaml("https://ann.example/").decode()
    conflict = save(ann, form, mine)
    save(bob, bob.get(EDIT), yaml("https://bob2.example/").decode())
    again = choose(ann, conflict, "ours")
    assert "changed again: review your choices" in again.page.text
    result = choose(ann, again, "ours")
    assert result.page.value("definition") == mine
    theirs = yaml("https://bob2.example/").decode().replace("label: Hook", "label: Paid")
    save(bob, bob.get(EDIT), theirs)
    third = save(ann, result, mine)
    assert third.status == 412
    assert third.page.value("definition") == mine.replace("label: Hook", "label: Paid")


@pytest.mark.usefixtures("draft")
@pytest.mark.parametrize("text", ["nodes: [", "", "- a"])
def test_a_text_that_cannot_be_read_is_compared_as_text(ann: Visitor, bob: Visitor, text: str) -> None:
    form = ann.get(EDIT)
    save(bob, bob.get(EDIT), yaml("https://bob.example/").decode())
    conflict = save(ann, form, text)
    assert conflict.status == 412
    assert "can't be merged: yours has an error" in conflict.page.text
    assert conflict.page.value("definition") == text
    assert "https://bob.example/" in conflict.page.text


@pytest.mark.usefixtures("draft")
@pytest.mark.parametrize("began", ["", "HEAD", "0" * 40])
def test_without_a_common_base_the_texts_are_compared(ann: Visitor, bob: Visitor, began: str) -> None:
    form = ann.get(EDIT)
    save(bob, bob.get(EDIT), yaml("https://bob.example/").decode())
    mine = yaml("https://ann.example/").decode()
    conflict = save(ann, form, mine, began=began, etag=began)
    assert conflict.status in (409, 412)
    assert conflict.page.value("definition") == mine


def published_draft(ann: Visitor, bob: Visitor) -> Answer:
    ann.api.create()
    form = ann.get(EDIT)
    assert bob.api.post("/workflows/order-sync/versions/publish").status_code == 201
    return form


def published_version(ann: Visitor, bob: Visitor) -> Answer:
    ann.api.create()
    ann.api.publish()
    form = ann.get(EDIT)
    bob.api.publish(url="https://bob.example/")
    return form


def opened_draft(ann: Visitor, bob: Visitor) -> Answer:
    ann.api.create()
    ann.api.publish()
    form = ann.get(EDIT)
    assert save(bob, bob.get(EDIT), yaml("https://bob.example/").decode()).status == 303
    return form


def discarded_draft(ann: Visitor, bob: Visitor) -> Answer:
    ann.api.create()
    ann.api.publish()
    save(ann, ann.get(EDIT), yaml("https://bob.example/").decode())
    form = ann.get(EDIT)
    assert bob.api.delete("/workflows/order-sync/versions/draft").status_code == 204
    return form


CONFLICTS = [
    (published_draft, 412, "published the draft as v1", 2),
    (published_version, 409, "published v2", 3),
    (opened_draft, 409, "started a draft", 2),
    (discarded_draft, 412, "discarded the draft", 2),
]


@pytest.mark.parametrize(("change", "status", "text", "number"), CONFLICTS)
def test_a_save_after_another_change_is_a_conflict(
    ann: Visitor, bob: Visitor, change: Any, status: int, text: str, number: int
) -> None:
    """The next save goes on top of that change, and can be published."""
    form = change(ann, bob)
    mine = yaml("https://ann.example/").decode()
    conflict = save(ann, form, mine)
    assert (conflict.status, f"{text} just now" in conflict.page.text) == (status, True)
    result = choose(ann, conflict, "ours") if conflict.page.all("input", type="radio") else conflict
    assert save(ann, result, result.page.value("definition")).status == 303
    assert "https://ann.example/" in text_of(ann)
    assert ann.api.post("/workflows/order-sync/versions/publish").json["version_number"] == number


# Validation while typing


@pytest.mark.usefixtures("draft")
def test_the_editor_gets_the_problems_of_unsaved_text(ann: Visitor) -> None:
    """The answer is that of POST /workflows/{id}/validate; the CSRF token is in a header."""
    path = f"{ONE}/validate"

    def ask(text: str, token: str) -> tuple[int, object]:
        answer = ann.client.post(
            path, data=text.encode(), base_url="https://gitstore.example", content_type="text/plain",
            headers={"X-CSRF-Token": token}, buffered=True,
        )  # fmt: skip
        return answer.status_code, json.loads(answer.data) if answer.status_code == 200 else None

    status, result = ask("nodes:\n  - {id: a}\n", ann.csrf)
    assert status == 200
    expected = ann.api.post(
        "/workflows/order-sync/validate", data="nodes:\n  - {id: a}\n", type="application/yaml"
    ).json
    assert result == expected
    assert ask("nodes: [", ann.csrf)[0] == 200
    assert ask("", ann.csrf)[0] == 200
    assert ask("nodes: []", "x")[0] == 403
    assert ask("x" * (2**20 + 1), ann.csrf)[0] == 413
    assert text_of(ann) == yaml().decode()


def test_a_json_definition_stays_json(ann: Visitor) -> None:
    ann.api.create(definition=json.dumps(definition(), indent=1))
    form = ann.get(EDIT)
    assert save(ann, form, json.dumps(definition("https://b.example/"))).status == 303
    assert (
        'filename="order-sync-draft.json"'
        in ann.get(f"{ONE}/versions/draft/download").headers["Content-Disposition"]
    )


# The canvas, and the scripts of the page


def apply(visitor: Visitor, text: str, patch: Any) -> Any:
    return visitor.client.post(
        f"{EDIT}/patch",
        base_url=HOST,
        json={"text": text, "patch": patch},
        headers={"X-CSRF-Token": visitor.csrf},
    )


@pytest.mark.usefixtures("draft")
def test_a_patch_edits_the_text_and_saves_nothing(ann: Visitor) -> None:
    """Comments and quoting stay; the problems of the new text are listed."""
    text = (
        "# mine\nnodes:\n  - {id: 'a', type: httpCall, data: {label: A, config: {url: https://a.example}}}\n"
    )
    patch = [{"op": "replace", "path": "/nodes/0/data/config/url", "value": "nowhere"}]
    before = text_of(ann)
    answer = apply(ann, text, patch)
    assert answer.status_code == 200
    assert answer.json["text"] == text.replace("https://a.example", "nowhere")
    assert {one["code"] for one in answer.json["problems"]} >= {"http_url_invalid", "http_method_missing"}
    assert text_of(ann) == before


@pytest.mark.usefixtures("draft")
@pytest.mark.parametrize(
    ("text", "patch", "status"),
    [
        ("nodes: [", [], 422),
        ("nodes: []", [{"op": "remove", "path": "/nodes/7"}], 400),
        ("nodes: []", [{"op": "replace", "path": "", "value": 1}], 400),
        ("nodes: []", {"op": "add"}, 400),
        (7, [], 400),
        ("nodes: []", [7], 400),
    ],
)
def test_a_patch_that_cannot_be_applied_is_refused(ann: Visitor, text: Any, patch: Any, status: int) -> None:
    answer = apply(ann, text, patch)
    assert answer.status_code == status
    assert answer.json["detail"]


@pytest.mark.usefixtures("draft")
def test_a_script_gets_a_refusal_without_a_page(ann: Visitor) -> None:
    """The editor stays, with everything that was typed; a save answers with its commit and the next page."""
    page = ann.get(EDIT).page
    fields = {name: page.value(name) for name in ("csrf", "etag", "base")}

    def send(text: str, **more: str) -> Any:
        form = {**fields, "message": "", "definition": text, **more}
        return ann.client.post(EDIT, base_url=HOST, data=form, headers={"Accept": "application/json"})

    refused = send("nodes: [")
    assert refused.status_code == 422
    assert refused.json["problems"][0]["line"] == 1
    assert send(yaml().decode(), etag="0" * 40).status_code == 412
    saved = send("# saved\n" + yaml().decode()).json
    assert saved == {"location": ONE, "commit": ann.get(EDIT).page.value("etag")}
    assert text_of(ann).startswith("# saved")


@pytest.mark.usefixtures("draft")
def test_the_page_loads_the_editor_within_its_budget(ann: Visitor) -> None:
    """300 KB of scripts as gzip, worker included; cached for good by names that change with the content."""
    page = ann.get(EDIT).page
    (script,) = [one for one in page.all("script") if one.attributes.get("type") == "module"]
    styles = [link.attributes["href"] for link in page.all("link", rel="stylesheet")]
    assert any("/built/assets/" in style for style in styles)
    url = script.attributes["src"]
    worker = re.search(r"parse\.worker-[\w-]+\.js", ann.get(url).html)
    assert worker is not None
    total = 0
    for each in (url, f"{url.rpartition('/')[0]}/{worker[0]}"):
        answer = ann.client.get(each, base_url=HOST, headers={"Accept-Encoding": "gzip"}, buffered=True)
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert answer.mimetype == "text/javascript"
        total += len(answer.data)
        etag = answer.headers["ETag"]
        again = {"Accept-Encoding": "gzip", "If-None-Match": etag}
        assert ann.client.get(each, base_url=HOST, headers=again, buffered=True).status_code == 304
    assert total <= 300_000


@pytest.mark.usefixtures("draft")
def test_pages_without_the_editor_stay_small(ann: Visitor) -> None:
    """60 KB of scripts as gzip."""
    for path in ("/ui/workflows", ONE, f"{ONE}/versions/draft"):
        scripts = [one.attributes["src"] for one in ann.get(path).page.all("script")]
        sizes = [len(gzip.compress(ann.get(url).html.encode())) for url in scripts]
        assert sum(sizes) <= 60_000, path


@pytest.mark.usefixtures("draft")
def test_a_page_is_compressed_for_those_who_accept_it(ann: Visitor) -> None:
    """Of a random length, so that the length reveals nothing about the CSRF token."""
    plain = ann.client.get(EDIT, base_url=HOST)
    assert "Content-Encoding" not in plain.headers
    packed = [ann.client.get(EDIT, base_url=HOST, headers={"Accept-Encoding": "gzip"}) for _ in range(8)]
    for answer in packed:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert "Accept-Encoding" in answer.headers["Vary"]
        assert "</html>" in gzip.decompress(answer.data).decode()
        assert len(answer.data) < len(plain.data) / 2
    assert len({len(answer.data) for answer in packed}) > 1


@pytest.mark.usefixtures("draft")
def test_a_refusal_for_the_session_shows_the_text_to_copy(ann: Visitor, house: House) -> None:
    form = ann.get(EDIT)
    assert form.status == 200
    signed_out = Visitor(house.app.test_client(), ann.api)
    for who, status in ((signed_out, 401), (ann, 403)):
        answer = who.post(EDIT, "another", definition="# é <b>\n" + yaml().decode())
        assert answer.status == status
        (area,) = answer.page.all("textarea", readonly="")
        assert area.text.removeprefix("\n") == "# é <b>\n" + yaml().decode()


@pytest.mark.usefixtures("draft")
def test_without_the_scripts_the_page_has_a_plain_form(ann: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says how to build them."""
    monkeypatch.setattr(assets, "_manifest", dict)
    answer = ann.get(EDIT)
    assert not any(one.attributes.get("type") == "module" for one in answer.page.all("script"))
    assert assets.HOW_TO_BUILD in answer.page.text
    assert save(ann, answer, "# plain\n" + yaml().decode()).status == 303
    assert text_of(ann).startswith("# plain")
