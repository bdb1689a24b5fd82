"""Common parts of the commands: options for settings, error output, progress, tables."""

from __future__ import annotations

import functools
import importlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn, TextIO

import click

from gitstore.errors import ConfigError, GitstoreError
from gitstore.masking import masked
from service import logs
from service.cli import manual
from service.config import SETTINGS, Config, Setting

WHERE: Final = ("DATABASE_URL", "GITSTORE_DATA")
"""Settings that every command needs."""

if TYPE_CHECKING:
    from tqdm import tqdm

Command = Callable[..., Any]


class Commands(click.Group):
    """Command group that loads commands on use, and prints errors as messages, not as tracebacks.

    `places` maps the name of each command to its location, as module:name.
    """

    def __init__(self, *arguments: Any, places: Mapping[str, str], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._places = places

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click calls it
        return sorted(self._places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        module, _, name = self._places.get(cmd_name, "").partition(":")
        if not name:
            return None
        command: click.Command = getattr(importlib.import_module(module), name)
        manual.complete(command, cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GitstoreError as error:
            raise CliError(error) from error
        except PermissionError as error:
            message = f"this user has no access to {error.filename}: {error.strerror}"
            raise CliError(ConfigError(message)) from error


class CliError(click.ClickException):
    """A GitstoreError shown on the terminal; exit status 1."""

    def __init__(self, error: GitstoreError) -> None:
        super().__init__(error.message)
        self._cause = logs.cause_of(error)

    def show(self, file: IO[Any] | None = None) -> None:
        first, *more = self.message.splitlines() or [""]
        lines = [f"error: {first}", *(f"       {line}" for line in more)]
        if self._cause and self._cause not in self.message:
            lines.append(f"       ({self._cause})")
        click.echo(masked("\n".join(lines)), file=file or sys.stderr)


def with_config(*names: str) -> Callable[[Command], Command]:
    """Decorate a command with the settings `names` (by default all) as options, and with a Config."""
    chosen = [setting for setting in SETTINGS if not names or setting.name in names]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def configured(*arguments: Any, **options: Any) -> Any:
            overrides = {setting.name: options.pop(setting.parameter) for setting in chosen}
            config = Config.from_env(overrides=overrides)
            logs.configure(config.log_format, config.log_level)
            return command(config, *arguments, **options)

        for setting in reversed(chosen):
            default = f"default: {setting.default}; " if setting.default else ""
            flag = setting.kind.flag
            shape: dict[str, Any] = {"is_flag": True, "flag_value": "true"} if flag else {"metavar": "TEXT"}
            configured = click.option(
                option_name(setting),
                setting.parameter,
                default=None,
                **shape,
                help=f"{setting.meaning} [{default}env: {setting.name}]",
            )(configured)
        return configured

    return decorate


def option_name(setting: Setting) -> str:
    """Return the command-line option that overrides a setting."""
    return f"--{setting.parameter.replace('_', '-')}"


def one_of(kinds: type[StrEnum]) -> click.Choice[str]:
    """Return a choice of an enum's values, as in the API; click's own choice of an enum takes its names."""
    return click.Choice([kind.value for kind in kinds])


class Progress:
    """Progress bar of long work, with the time that is left: on a terminal's stderr; gone at the end."""

    def __init__(self, what: str, stream: TextIO | None = None) -> None:
        self._what = what
        self._stream = stream or sys.stderr
        self._bar: tqdm[NoReturn] | None = None

    def __call__(self, done: int, total: int) -> None:
        if self._bar is None:
            if done >= total or not self._stream.isatty():
                return
            # Imported only now: no other command needs it.
            from tqdm import tqdm

            tqdm.monitor_interval = 0  # starts no thread
            self._bar = tqdm(desc=self._what, total=total, file=self._stream, leave=False, dynamic_ncols=True)
        self._bar.total = total
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._bar.close()
            self._bar = None


def print_line(line: str, *, err: bool = False) -> None:
    """Print a line above the progress bar, if there is one."""
    if "tqdm" not in sys.modules:
        click.echo(line, err=err)
        return
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):
        click.echo(line, err=err)


as_rows = click.option("--json", "as_json", is_flag=True, help="Print JSON: a list with an object a row.")
"""Decorate a command that lists rows with `show`."""


as_object = click.option("--json", "as_json", is_flag=True, help="Print JSON: an object.")
"""Decorate a command that prints one result with `report`."""


def report(line: str, facts: Mapping[str, object], *, as_json: bool) -> None:
    """Print a result as a line, or its facts as a JSON object."""
    print_line(in_json(facts) if as_json else line)


def show(heads: Sequence[str], rows: Iterable[Sequence[object]], *, as_json: bool) -> None:
    """Print rows as a table, or as JSON objects whose keys are the heads ("last used" is `last_used`)."""
    if as_json:
        keys = [head.replace(" ", "_") for head in heads]
        click.echo(in_json([dict(zip(keys, row, strict=True)) for row in rows]))
    else:
        click.echo(table(heads, rows))


def in_json(value: object) -> str:
    """Return `value` as JSON text: times in RFC 3339, ids and names as text."""
    return json.dumps(value, default=_text, ensure_ascii=False, indent=2)


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows as columns, each as wide as necessary; None is an empty cell."""
    cells = [list(heads), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)
    return "\n".join(lines)


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return str(value)


def _cell(value: object) -> str:
    text = "" if value is None else _text(value)
    return "".join(character if character.isprintable() else "?" for character in text)
