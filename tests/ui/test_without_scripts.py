"""Every task of the page, in a browser without scripts: plain forms and links do all of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.service.users import jwt_of
from tests.stories.instance import Caller, Service, definition
from tests.ui import browser
from tests.ui.browser import Tab, needs_chromium
from tests.ui.conftest import HOST_PAGE

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture
def ann(chromium: Browser, owner: Caller) -> Iterator[Tab]:
    with browser.tab(chromium, owner, java_script_enabled=False, accept_downloads=True) as opened:
        yield opened


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def follow(page: Page, name: str) -> None:
    page.get_by_role("link", name=name, exact=True).click()


def tab(page: Page, name: str) -> None:
    page.locator("nav.tabs").get_by_role("link", name=name).click()


def expect_notice(page: Page, text: str) -> None:
    expect(page.locator("main [role=status]").filter(has_text=text).first).to_be_visible()


def test_a_workflow_is_created_changed_and_brought_back(ann: Tab, tmp_path: Path) -> None:
    """From a starter and from a file; renamed, held, stopped, archived, discarded and restored."""
    page = ann.page
    follow(page, "New workflow")
    page.get_by_label("Name", exact=True).fill("Order sync")
    page.get_by_label("Forward a webhook").check()
    press(page, "Create workflow")
    expect_notice(page, "Workflow created.")
    text = page.get_by_label("Definition", exact=True).input_value()
    assert "webhook" in text
    page.get_by_label("Definition", exact=True).fill(text + "# typed\n")
    page.get_by_label("Summary of your changes").fill("Typed by hand")
    press(page, "Save draft")
    expect_notice(page, "Draft saved.")
    page.get_by_label("Release note").fill("The first")
    press(page, "Publish v1")
    expect_notice(page, "v1 is published, and is the current version.")

    tab(page, "Settings")
    page.get_by_label("Name", exact=True).fill("Orders")
    page.get_by_label("Description", exact=True).fill("Copies orders.")
    press(page, "Save changes")
    expect_notice(page, "Changes saved.")
    page.get_by_role("textbox", name="Reason").fill("incident 7")
    press(page, "Hold v1")
    expect_notice(page, "v1 is the current version and held")
    press(page, "Release v1")
    expect_notice(page, "v1 is no longer held")
    follow(page, "Stop…")
    press(page, "Stop the workflow")
    expect_notice(page, "Stopped.")
    expect(page.get_by_role("heading", name="Orders", level=1)).to_be_visible()
    follow(page, "Make current v1")
    press(page, "Make v1 current")
    expect_notice(page, "v1 is the current version.")

    tab(page, "Edit")
    page.get_by_label("Definition", exact=True).fill(definition("Orders"))
    press(page, "Save draft")
    press(page, "Publish v2")
    follow(page, "v1")
    with page.expect_download() as download:
        follow(page, "Download")
    assert Path(download.value.path()).read_text() == text + "# typed\n"
    follow(page, "Revert the draft to v1")
    press(page, "Revert the draft to v1")
    expect_notice(page, "The draft has the content of v1.")
    follow(page, "Discard")
    press(page, "Discard the draft")
    expect_notice(page, "Draft discarded.")
    press(page, "Restore")
    expect_notice(page, "Draft restored.")
    tab(page, "History")
    page.get_by_label("Compare from v1").check()
    page.get_by_label("Compare to v2").check()
    press(page, "Compare")
    expect(page.locator("ins").first).to_be_visible()
    follow(page, "Unified")
    expect(page.locator("table.unified")).to_be_visible()
    tab(page, "Settings")
    follow(page, "Archive…")
    press(page, "Archive the workflow")
    expect_notice(page, "Archived.")
    press(page, "Take out of the archive")
    expect_notice(page, "Taken out of the archive.")

    file = tmp_path / "flow.yaml"
    file.write_text(definition("Imported"))
    ann.go("/ui/new-workflow")
    page.get_by_label("Slug").fill("imported")
    page.get_by_label("Or import a file").set_input_files(file)
    press(page, "Create workflow")
    assert page.get_by_label("Definition", exact=True).input_value() == definition("Imported")


def test_owners_manage_tokens_members_and_the_schema(ann: Tab) -> None:
    page, user = ann.page, str(uuid4())
    ann.go("/ui/tokens")
    page.get_by_label("Name").fill("engine")
    page.get_by_label("Role").select_option("editor")
    press(page, "Create token")
    assert page.locator("code").first.inner_text().startswith("gst_")
    follow(page, "I've saved it")
    follow(page, "Revoke engine")
    press(page, "Revoke the token")
    expect_notice(page, "Token revoked.")
    follow(page, "Members")
    page.get_by_label("User id").fill(user)
    press(page, "Add member")
    expect_notice(page, "Role saved.")
    page.get_by_label(f"Role of {user}").select_option("publisher")
    press(page, f"Save the role of {user}")
    expect_notice(page, "Role saved.")
    follow(page, f"Remove {user}")
    press(page, "Remove the member")
    expect_notice(page, "Member removed.")
    page.locator("header nav").get_by_role("link", name="Settings").click()
    page.get_by_label("Schema as Any").check()
    press(page, "Save changes")
    follow(page, "Edit the schema")
    page.get_by_label("Schema").fill('{"type": "object", "required": ["nodes"]}')
    press(page, "Check against drafts")
    expect(page.get_by_role("heading", name="No draft would fail")).to_be_visible()
    press(page, "Save schema")
    expect_notice(page, "Schema saved.")
    follow(page, "Remove…")
    press(page, "Remove the schema")
    expect_notice(page, "Schema removed.")


def test_a_user_goes_from_project_to_project(chromium: Browser, service: Service, owner: Caller) -> None:
    user = uuid4()
    second = service.project(f"p-{uuid4().hex[:12]}")
    for each in (owner, second):
        project = each.get("/projects").json["projects"][0]["id"]
        assert each.call("PUT", f"/projects/{project}/members/{user}", {"role": "editor"}).status == 200
    context = chromium.new_context(java_script_enabled=False, base_url=service.url)
    sent = {"Authorization": f"Bearer {jwt_of(user)}", "Origin": HOST_PAGE}
    code = context.request.post(f"/ui/handover?project={owner.project}", headers=sent).json()["code"]
    form = {"code": code, "next": "/ui/projects"}
    assert context.request.post("/ui/handover/enter", form=form, headers={"Origin": HOST_PAGE}).ok
    page = context.new_page()
    page.goto("/ui/projects")
    press(page, f"Switch to {second.project}")
    expect(page.locator("header").first).to_contain_text(second.project)
    page.goto("/ui/projects")
    page.get_by_label("Name").fill("Nightly jobs")
    press(page, "Create project")
    expect(page.locator("header").first).to_contain_text("nightly-jobs")
    press(page, "Sign out")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    context.close()
