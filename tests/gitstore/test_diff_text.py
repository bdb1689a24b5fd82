"""The text diff of two files: git's format, which git applies."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.diff.text import text_diff
from gitstore.drafts import File
from tests.conftest import examples


def test_bytes_that_are_not_utf_8_are_replaced() -> None:
    """An import may hold a file that does not parse."""
    broken = b"nodes: [\n  {token: x}\n\xff\n"
    text = text_diff(File("workflow.yaml", broken), File("workflow.yaml", b"nodes: []\n"))
    assert "-nodes: [\n-  {token: x}\n-\ufffd\n" in text


_LINES = st.lists(st.sampled_from(["a", "b", "c", "d", "", "  e: 1"]), max_size=25)


@examples(60)
@given(_LINES, _LINES, st.booleans(), st.booleans())
def test_git_applies_a_text_diff(
    tmp_path_factory: pytest.TempPathFactory, old: list[str], new: list[str], open_old: bool, open_new: bool
) -> None:
    """Also where the last line has no line break."""
    before, after = (
        "\n".join(lines) + ("" if is_open or not lines else "\n")
        for lines, is_open in ((old, open_old), (new, open_new))
    )
    patch = text_diff(File("workflow.yaml", before.encode()), File("workflow.yaml", after.encode()))
    if before == after:
        assert patch == ""
        return
    folder: Path = tmp_path_factory.mktemp("patched")
    (folder / "workflow.yaml").write_bytes(before.encode())
    subprocess.run(["git", "apply", "-"], cwd=folder, input=patch.encode(), check=True, capture_output=True)
    assert (folder / "workflow.yaml").read_bytes() == after.encode()


def test_a_new_file_name_is_a_rename() -> None:
    old, new = File("workflow.yml", b"a: 1\n"), File("workflow.yaml", b"a: 2\n")
    assert text_diff(old, new) == (
        "diff --git a/workflow.yml b/workflow.yaml\n"
        "rename from workflow.yml\nrename to workflow.yaml\n"
        "--- a/workflow.yml\n+++ b/workflow.yaml\n"
        "@@ -1 +1 @@\n-a: 1\n+a: 2\n"
    )
