"""Autosaves: unsaved text is kept for its author alone, and becomes one commit once it is idle."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from service.actions import autosaves as actions
from service.context import EXTENSION
from sync import autosaves
from tests.service.api.conftest import House, yaml
from tests.ui.visitor import HOST, Answer, Visitor, visitor

ONE = "/ui/workflows/order-sync"
EDIT, PATH = f"{ONE}/edit", f"{ONE}/autosave"
DRAFT = "/workflows/order-sync/versions/draft"
FIELDS = ("etag", "base", "began")


@pytest.fixture
def form(ann: Visitor) -> Answer:
    """The editor on an open draft of YAML."""
    ann.api.create(definition=yaml().decode())
    return ann.get(EDIT)


def call(who: Visitor, method: str, path: str = PATH, **fields: str) -> Any:
    headers = {"X-CSRF-Token": who.csrf}
    return who.client.open(
        path, method=method, base_url=HOST, data=fields or None, headers=headers, buffered=True
    )


def put(who: Visitor, form: Answer, text: str, status: int = 200, **more: str) -> Any:
    seen = {name: form.page.value(name) for name in FIELDS}
    answer = call(who, "PUT", **{**seen, "definition": text, "message": "", **more})
    assert answer.status_code == status, answer.text
    return answer.json if status == 200 else answer


def save(who: Visitor, form: Answer, text: str) -> Answer:
    return who.post(EDIT, **{name: form.page.value(name) for name in FIELDS}, definition=text, message="")


def kept(who: Visitor) -> list[str]:
    return [row["definition"] for row in call(who, "GET").json["autosaves"]]


def commit_idle(house: House, age: timedelta = timedelta(0)) -> int:
    return actions.commit_idle(house.app.extensions[EXTENSION], lambda: False, age)


def text_of(who: Visitor) -> str:
    return str(who.api.get(f"{DRAFT}/definition").text)


MINE = yaml("https://mine.example/").decode()


def test_what_is_typed_is_kept_for_its_author_alone(ann: Visitor, form: Answer, house: House) -> None:
    """On any device of theirs, without a commit or an event; not for others, nor in another project."""
    before = ann.api.get(DRAFT).json
    tip = ann.api.get("/workflows/order-sync/changes").json["token"]
    first = put(ann, form, MINE, message="Why <b>")
    put(ann, form, MINE + "# more\n", message="Why <b>")
    assert {name: first[name] for name in ("began", "etag", "conflict")} == {
        "began": before["commit"], "etag": before["commit"], "conflict": None,
    }  # fmt: skip
    assert kept(ann) == [MINE + "# more\n"]
    assert kept(visitor(house)) == []
    other = visitor(house, project=house.other)
    other.api.create(definition=yaml().decode())
    assert kept(other) == []
    assert ann.api.get(DRAFT).json == before
    assert ann.api.get(f"/workflows/order-sync/changes?since={tip}").status_code == 304
    device = Visitor(house.app.test_client(), ann.api)
    device.sign_in()
    assert "You have unsaved changes" not in visitor(house).get(ONE).page.text
    assert "You have unsaved changes from just now" in device.get(ONE).page.text
    page = device.get(EDIT).page
    assert "You have unsaved changes from just now" in page.text
    resumed = device.get(next(link for link in page.links() if "unsaved=" in link))
    assert resumed.page.value("definition") == MINE + "# more\n"
    assert resumed.page.value("message") == "Why <b>"
    assert save(device, resumed, resumed.page.value("definition")).status == 303
    assert kept(ann) == []
    assert text_of(ann) == MINE + "# more\n"


def test_unsaved_text_is_discarded(ann: Visitor, form: Answer) -> None:
    """By the script, and by a form."""
    put(ann, form, MINE)
    assert call(ann, "DELETE", f"{PATH}?began={form.page.value('began')}").status_code == 204
    assert kept(ann) == []
    put(ann, form, MINE)
    assert ann.post(f"{ONE}/unsaved", began=form.page.value("began")).status == 303
    assert kept(ann) == []


def test_a_browser_without_scripts_keeps_its_text_by_a_button(ann: Visitor, form: Answer) -> None:
    """Also a text that could not be saved; the editor goes on from it, and shows a refusal with it."""
    seen = {name: form.page.value(name) for name in FIELDS}
    assert "Keep for later" in form.html
    answer = ann.post(f"{ONE}/keep", **seen, definition="nodes: [", message="Why")
    assert (answer.status, answer.location) == (303, f"{EDIT}?unsaved={seen['began']}")
    resumed = ann.get(answer.location or "").page
    assert "Kept for you alone" in resumed.text
    assert (resumed.value("definition"), resumed.value("message")) == ("nodes: [", "Why")
    assert kept(ann) == ["nodes: ["]
    refused = ann.post(f"{ONE}/keep", **seen, definition=MINE, message="x" * 10_001)
    assert refused.status == 413
    assert refused.page.value("definition") == MINE


def test_what_is_not_kept(ann: Visitor, form: Answer, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too large, too many, of viewers, without the session's own token, or without a commit."""
    put(ann, form, "x" * (2**20 + 1), 413)
    put(ann, form, MINE, 413, message="x" * 10_001)
    put(ann, form, MINE, 400, began="", etag="")
    viewer = visitor(house, "viewer")
    assert call(viewer, "PUT", definition=MINE).status_code == 403
    monkeypatch.setattr(ann, "csrf", "other")
    put(ann, form, MINE, 403)
    assert call(ann, "DELETE", f"{PATH}?began={'0' * 40}").status_code == 403
    monkeypatch.undo()
    monkeypatch.setattr(actions, "MOST", 1)
    put(ann, form, MINE)
    put(ann, form, MINE + "# again\n")
    put(ann, form, MINE, 409, began="0" * 40)
    assert (
        call(ann, "PUT", "/ui/workflows/nowhere/autosave", definition=MINE, began="0" * 40).status_code == 404
    )


def test_idle_text_becomes_one_commit_of_its_author(ann: Visitor, form: Answer, house: House) -> None:
    """The editor that is still open continues from it, and does not conflict with itself."""
    put(ann, form, MINE, message="Another warehouse")
    assert commit_idle(house, timedelta(minutes=10)) == 0
    assert commit_idle(house) == 1
    assert commit_idle(house) == 0
    draft = ann.api.get(DRAFT).json
    assert (text_of(ann), draft["message"]) == (MINE, "Another warehouse")
    assert draft["author"]["name"] == ann.api.get(DRAFT).json["author"]["name"]
    assert draft["author"]["name"].startswith("token:owner-")
    assert kept(ann) == []
    again = put(ann, form, MINE + "# more\n")
    assert (again["began"], again["etag"]) == (draft["commit"], draft["commit"])
    assert commit_idle(house) == 1
    assert save(ann, form, MINE + "# most\n").status == 303
    assert text_of(ann) == MINE + "# most\n"
    assert ann.api.get("/workflows/order-sync").json["latest_version"] is None


def test_a_text_typed_while_it_becomes_a_commit_is_kept(ann: Visitor, form: Answer, house: House) -> None:
    put(ann, form, MINE)
    with house.database.as_owner() as tx:
        (row,) = autosaves.idle(tx, timedelta(0))
    put(ann, form, MINE + "# later\n")
    actions._commit(house.app.extensions[EXTENSION], row)
    assert (text_of(ann), kept(ann)) == (MINE, [MINE + "# later\n"])
    assert commit_idle(house) == 1
    assert text_of(ann) == MINE + "# later\n"


@pytest.mark.parametrize("change", ["saved", "published", "revoked", "broken"])
def test_text_that_cannot_become_a_commit_stays(
    ann: Visitor, form: Answer, house: House, change: str
) -> None:
    """With the reason, which the editor shows; nothing is overwritten."""
    put(ann, form, MINE if change != "broken" else "nodes: [")
    bob = visitor(house)
    if change == "saved":
        bob.api.put(DRAFT, data=yaml("https://bob.example/"), type="application/yaml", match="*")
    elif change == "published":
        assert bob.api.post("/workflows/order-sync/versions/publish").status_code == 201
    elif change == "revoked":
        with house.database.as_owner() as tx:
            tx.run("update gitstore.access_tokens set revoked_at = now() where name like 'owner-%%'")
    before = None if change == "revoked" else bob.api.get("/workflows/order-sync").json
    assert commit_idle(house) == 0
    assert commit_idle(house) == 0
    with house.database.as_owner() as tx:
        why, text = tx.tuples("select conflict, definition from gitstore.autosaves")[0]
    assert why
    assert text in (MINE, "nodes: [")
    if change == "revoked":
        return
    assert bob.api.get("/workflows/order-sync").json == before
    page = ann.get(EDIT).page
    assert "which were not saved by themselves" in page.text
    resumed = ann.get(next(link for link in page.links() if "unsaved=" in link))
    assert save(ann, resumed, MINE).status == {"saved": 412, "published": 412, "broken": 303}[change]


def test_text_that_is_saved_already_is_forgotten(ann: Visitor, form: Answer, house: House) -> None:
    """As after a request that arrived after the save."""
    assert save(ann, form, MINE).status == 303
    put(ann, form, MINE)
    assert commit_idle(house) == 0
    assert kept(ann) == []


def test_text_without_a_draft_begins_one(ann: Visitor, house: House) -> None:
    ann.api.create(definition=yaml().decode())
    ann.api.publish()
    put(ann, ann.get(EDIT), MINE)
    assert commit_idle(house) == 1
    assert text_of(ann) == MINE
    assert ann.api.get("/workflows/order-sync").json["current"]["version_number"] == 1


def test_old_text_is_deleted(ann: Visitor, form: Answer, house: House) -> None:
    put(ann, form, MINE)
    with house.database.as_owner() as tx:
        assert autosaves.prune(tx, actions.KEPT) == 0
        tx.run("update gitstore.autosaves set saved_at = now() - interval '31 days'")
        assert autosaves.prune(tx, actions.KEPT) == 1
