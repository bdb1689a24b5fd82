"""Configuration: the only module that reads the environment.

Every setting is an environment variable of one table (`service/settings.py`). A command-line option that
overrides a setting is parsed by the same rules. An empty variable counts as unset. Invalid settings abort the
start: all are reported at once, each with its name and the expected value.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gitstore.errors import ConfigError
from gitstore.model import Limits
from service.settings import SETTINGS, Bind, Setting
from webhooks.addresses import Allowed

METRICS_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"  # the client library's own variable, read at import
_URL: Final = re.compile(r"(\w+)://(?:([^:@/]*)(?::.*)?@)?([^@?#]*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Config:
    """Values of all settings. `database_url` is None for the embedded Postgres."""

    database_url: str | None
    data: Path
    bind: Bind
    given_public_url: str | None
    workers: int
    threads: int
    reconcile_seconds: int
    keep_days: int
    log_format: str
    log_level: str
    limits: Limits
    max_import: int = 2**30
    secret_key: str | None = None
    metrics_token: str | None = None
    metrics_bind: Bind | None = None
    egress_allow: Allowed | None = None
    metrics_folder: Path | None = None
    """Folder in which the processes of one `serve` share their metrics; set by `serve`, not by the operator.
    """

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] | None = None, overrides: Mapping[str, str | None] | None = None
    ) -> Config:
        """Read every setting from `environ` (the process's own by default).

        `overrides` maps names of settings to texts of command-line options; None is an option not given.
        Raises `config`, which names every invalid setting in its message and in `settings`.
        """
        given = {**(os.environ if environ is None else environ)}
        given.update({name: text for name, text in (overrides or {}).items() if text is not None})
        texts = {name: text for name, text in given.items() if text.strip()}
        values: dict[str, Any] = {}
        wrong: dict[str, str] = {}
        for setting in SETTINGS:
            text = texts.get(setting.name, setting.default).strip()
            try:
                values[setting.field] = setting.read(text) if text else None
            except ValueError:
                wrong[setting.name] = (
                    f"{setting.name} is {_shown(setting, text)}: expected {setting.expected}"
                )
        if not wrong:
            wrong = _contradictions(values)
        if wrong:
            raise ConfigError("\n".join(wrong.values()), settings=sorted(wrong))
        names = [field.partition(".")[2] for field in values if field.startswith("limits.")]
        limits = Limits(**{name: values.pop(f"limits.{name}") for name in names})
        metrics = texts.get(METRICS_FOLDER)
        return cls(**values, limits=limits, metrics_folder=Path(metrics) if metrics else None)

    @property
    def public_url(self) -> str:
        """Base URL of links and printed commands, without a trailing slash."""
        return self.given_public_url or self.bind.url

    @property
    def repositories(self) -> Path:
        return self.data / "repos"

    @property
    def postgres_folder(self) -> Path:
        """Folder of the embedded Postgres."""
        return self.data / "postgres"

    @property
    def secret_key_file(self) -> Path:
        """File in which a generated key is kept, unless GITSTORE_SECRET_KEY holds the key."""
        return self.data / "secret-key"

    @property
    def token_file(self) -> Path:
        """File that holds the first owner's token."""
        return self.data / "owner-token"

    def environment(self, **extra: str) -> dict[str, str]:
        """Return the environment of a child process: this one, with the present settings."""
        texts = {setting.name: _text(self, setting.field) for setting in SETTINGS}
        return {**os.environ, **texts, **extra}


def misspelt(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return variables that resemble a setting but are none: name -> the setting that may be meant.

    Not an error: Kubernetes itself sets GITSTORE_PORT for a service of that name.
    """
    names = [setting.name for setting in SETTINGS]
    unknown = sorted(set(os.environ if environ is None else environ) - set(names))
    close = {name: difflib.get_close_matches(name, names, 1, 0.9) for name in unknown}
    return {name: found[0] for name, found in close.items() if found}


def _shown(setting: Setting, text: str) -> str:
    """Return the given text for an error message, or a substitute if it may be a secret."""
    if found := _URL.match(text):
        scheme, user, rest = found.groups()
        return repr(f"{scheme}://{user + ':***@' if user is not None else ''}{rest}"[:200])
    if setting.secret:
        return "something else (not shown: it may hold a password)"
    return repr(text[:200])


def _text(config: Config, field: str) -> str:
    holder, _, name = field.rpartition(".")
    value = getattr(config.limits if holder else config, name)
    return "" if value is None else str(value)


def _contradictions(values: Mapping[str, Any]) -> dict[str, str]:
    """Return errors of settings that are valid alone but not together."""
    wrong = {}
    for smaller, larger in (("definition", "object"), ("object", "inflated")):
        low, high = values[f"limits.{smaller}"], values[f"limits.{larger}"]
        if low > high:
            name, other = f"GITSTORE_MAX_{smaller.upper()}", f"GITSTORE_MAX_{larger.upper()}"
            wrong[name] = f"{name} is {low} bytes: expected at most {other}, which is {high} bytes"
    if values["metrics_bind"] == values["bind"] and values["bind"].port:
        name = "GITSTORE_METRICS_BIND"
        wrong[name] = f"{name} is {values['bind']}, the address of GITSTORE_BIND: expected another port"
    return wrong
