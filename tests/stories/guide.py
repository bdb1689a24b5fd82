"""A guide of docs/, read as a newcomer reads it: files are written, and commands pasted into a shell."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.helpers import PATIENCE

DOCS = Path(__file__).parents[2] / "docs"
MARK = "pasted-block-ended"
_SECTION = re.compile(r"^##+ (.+)\n", re.MULTILINE)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PROMPTED = re.compile(r"^\$ ((?:.*\\\n)*+.*)$", re.MULTILINE)
_FILE = re.compile(r"`([^`]+\.\w+)`:$")
_PLACEHOLDER = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Block:
    kind: str
    text: str
    file: str | None

    @property
    def commands(self) -> str:
        """What a reader enters: the whole text, or what follows the prompts."""
        return self.text if self.kind == "sh" else "\n".join(_PROMPTED.findall(self.text))


def blocks_in(text: str) -> list[Block]:
    found = []
    for match in _BLOCK.finditer(text):
        named = _FILE.search(text[: match.start()].rstrip().rpartition("\n")[2])
        found.append(Block(match[1], match[2], named[1] if named else None))
    return found


@dataclass
class Guide:
    """The blocks of a document by section, with the values of its placeholders, which it lists in a table."""

    name: str
    values: Mapping[str, str]
    unread: dict[str, list[Block]] = field(init=False)

    def __post_init__(self) -> None:
        text = (DOCS / self.name).read_text()
        table = text.partition("| placeholder |")[2].partition("\n\n")[0]
        listed = {name for row in table.splitlines()[2:] for name in _PLACEHOLDER.findall(row.split("|")[1])}
        assert self.values.keys() <= listed
        _, *parts = _SECTION.split(text)
        self.unread = {title: blocks_in(part) for title, part in zip(parts[::2], parts[1::2], strict=True)}
        self.unread = {title: blocks for title, blocks in self.unread.items() if blocks}

    def section(self, title: str) -> list[Block]:
        """The blocks of a section, as its reader enters them."""
        return [Block(each.kind, self._filled(each.text), each.file) for each in self.unread.pop(title)]

    def _filled(self, text: str) -> str:
        for placeholder in sorted(self.values, key=len, reverse=True):
            text = text.replace(placeholder, self.values[placeholder])
        return text


class Shell:
    """A shell, which keeps its variables and its folder between the blocks."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder, self.environment = folder, dict(environment)
        self._bash = subprocess.Popen(
            ["bash", "-e"], cwd=folder, env=self.environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def paste(self, block: str) -> str:
        """Run a block, which has to succeed; what it printed."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f"{block}\necho\necho {MARK}\n")
        self._bash.stdin.flush()
        lines: list[str] = []
        for line in self._bash.stdout:
            if line.strip() == MARK:
                return "".join(lines)
            lines.append(line)
        pytest.fail(f"this failed:\n{block}\n{''.join(lines)}")

    def follow(self, blocks: list[Block]) -> list[str]:
        """Write the files and run the commands; compare what they print with blocks of text."""
        printed = []
        for block in blocks:
            if block.file is not None:
                path = self.folder / block.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text)
            elif block.kind in ("sh", "console"):
                printed.append(self.paste(block.commands))
            elif block.kind == "text":
                wanted = "".join(map(re.escape, block.text)).replace("…", ".*")
                assert re.search(wanted, printed[-1]), f"{printed[-1]} is not {block.text}"
        return printed

    def close(self) -> None:
        with self._bash:
            self._bash.kill()


class Terminal:
    """A second shell, in which a block runs until its reader presses Ctrl-C."""

    def __init__(self, shell: Shell, block: str, ready: str) -> None:
        self._process = subprocess.Popen(
            ["bash", "-ec", block], cwd=shell.folder, env=shell.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.lines: list[str] = []
        for line in self._process.stdout:
            self.lines.append(line)
            if ready in line:
                return
        pytest.fail("".join(self.lines))

    def interrupt(self) -> str:
        """Press Ctrl-C; what it printed."""
        os.killpg(self._process.pid, signal.SIGINT)
        output, _ = self._process.communicate(timeout=PATIENCE)
        return "".join(self.lines) + output
