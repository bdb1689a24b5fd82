"""Configuration: the table of settings, and the only code that reads the environment.

Every setting is an environment variable; a command-line option overrides it, and is parsed by the same rules.
An empty variable counts as unset. Invalid settings abort the start: all are reported at once, each with its
name and the expected value. A test compares the table in docs/operations.md with this one.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from gitstore.errors import ConfigError
from gitstore.model import Limits
from service import setting_kinds as kinds
from service.clients import Proxies
from service.cors import Origins
from service.issuers import Issuers
from service.setting_kinds import Bind, Kind
from webhooks.addresses import Allowed

METRICS_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"  # the client library's own variable, read at import
_URL: Final = re.compile(r"(\w+)://(?:([^:@/]*)(?::.*)?@)?([^@?#]*)", re.DOTALL)
_LIMITS: Final = {f"max_{limit.name}": f"limits.{limit.name}" for limit in fields(Limits)}


@dataclass(frozen=True, slots=True)
class Setting:
    """One environment variable, and the field of Config that has its value."""

    name: str
    default: str
    meaning: str
    kind: Kind
    given_field: str | None = None

    @property
    def parameter(self) -> str:
        return self.name.removeprefix("GITSTORE_").lower()

    @property
    def field(self) -> str:
        """Name of the field, or limits.x of its Limits."""
        return self.given_field or _LIMITS.get(self.parameter, self.parameter)


SETTINGS: Final = (
    Setting(
        "DATABASE_URL",
        "",
        "Postgres server (15 or newer) to use, reached directly or through a pooler. If unset, gitstore runs "
        "its own in the data folder.",
        kinds.DATABASE,
    ),
    Setting(
        "DATABASE_DIRECT_URL",
        "",
        "The same database, reached directly or through a session pooler, for the notifications that start "
        "background work at once. Of use where DATABASE_URL is a pooler in transaction mode; without it, the "
        "worker looks for work every second there.",
        kinds.DATABASE,
    ),
    Setting(
        "GITSTORE_READ_ONLY",
        "false",
        "Whether `gitstore serve` is a read node: it serves versions, definitions, histories and differences "
        "from Postgres alone, which may be a replica, and needs no data folder and no git.",
        kinds.FLAG,
    ),
    Setting(
        "GITSTORE_READ_URL",
        "",
        "Replica of the database, for reads of versions, definitions, histories and differences. What it "
        "lacks is read at DATABASE_URL.",
        kinds.DATABASE,
    ),
    Setting(
        "GITSTORE_READ_LAG_SECONDS",
        "10",
        "Lag beyond which a replica is not read: a revoked token works there for at most that long. "
        "`/readyz` of a read node without GITSTORE_READ_URL then answers 503.",
        kinds.number(1, 86_400, "a number of seconds"),
    ),
    Setting(
        "GITSTORE_DATABASE_CONNECTIONS",
        "16",
        "Maximum number of connections to Postgres of each web process, and of the worker. Half of them may "
        "write at a time.",
        kinds.number(2, 1000),
    ),
    Setting(
        "GITSTORE_DATABASE_SECONDS",
        "60",
        "Seconds that `gitstore serve` waits for the Postgres at DATABASE_URL before it gives up.",
        kinds.number(1, 86_400, "a number of seconds"),
    ),
    Setting(
        "GITSTORE_DATA",
        "./gitstore-data",
        "Data folder: repositories, the embedded Postgres, the owner's token.",
        Kind(kinds.folder, "a folder, or the name of one to create"),
    ),
    Setting(
        "GITSTORE_BIND",
        "127.0.0.1:8080",
        "Address to listen on. Port 0 selects a free port.",
        Kind(kinds.bind, "host:port, such as 127.0.0.1:8080, 0.0.0.0:80 or [::1]:8080"),
    ),
    Setting(
        "GITSTORE_PUBLIC_URL",
        "",
        "URL at which users reach the service, for links and printed commands. Defaults to the address "
        "that it listens on.",
        Kind(
            kinds.http_url,
            "an http or https URL without user, query or fragment, such as https://gitstore.example",
        ),
        "given_public_url",
    ),
    Setting("GITSTORE_WORKERS", "2", "Number of web processes.", kinds.number(1, 64)),
    Setting(
        "GITSTORE_THREADS",
        "4",
        "Requests that each web process handles at once, not counting those that wait for their client.",
        kinds.number(1, 64),
    ),
    Setting(
        "GITSTORE_RECONCILE_SECONDS",
        "60",
        "Interval at which the worker mirrors to Postgres what a crash left in Git alone.",
        kinds.number(1, 86_400, "a number of seconds"),
    ),
    Setting(
        "GITSTORE_KEEP_DAYS",
        "30",
        "Days to keep ended deliveries, with their attempts, and receipts of webhooks.",
        kinds.number(1, 3650, "a number of days"),
    ),
    Setting("GITSTORE_MAX_PACK", "16M", "Maximum pack size of a push.", kinds.SIZE),
    Setting(
        "GITSTORE_MAX_PACK_OBJECTS",
        "100000",
        "Maximum number of objects in the pack of a push.",
        kinds.number(1, 100_000_000),
    ),
    Setting(
        "GITSTORE_MAX_COMMANDS",
        "10000",
        "Maximum number of refs that one push updates.",
        kinds.number(1, 1_000_000),
    ),
    Setting(
        "GITSTORE_MAX_INFLATED", "64M", "Maximum total size of a push's objects, uncompressed.", kinds.SIZE
    ),
    Setting("GITSTORE_MAX_OBJECT", "4M", "Maximum size of one object of a push, uncompressed.", kinds.SIZE),
    Setting(
        "GITSTORE_MAX_IMPORT",
        "1G",
        "Maximum size of a pack fetched from a source. Other limits of an import follow from it.",
        kinds.SIZE,
    ),
    Setting("GITSTORE_MAX_DEFINITION", "1M", "Maximum size of a definition.", kinds.SIZE),
    Setting(
        "GITSTORE_MAX_ANY_DEFINITION",
        "4M",
        "Maximum size of a definition under other rules than `meshhook`, if it is more than "
        "GITSTORE_MAX_DEFINITION; at most GITSTORE_MAX_OBJECT.",
        kinds.SIZE,
    ),
    Setting("GITSTORE_MAX_DEPTH", "64", "Maximum nesting depth of a definition.", kinds.number(1, 256)),
    Setting(
        "GITSTORE_MAX_NODES",
        "50000",
        "Maximum number of YAML or JSON nodes in a definition, with aliases expanded.",
        kinds.number(1, 1_000_000),
    ),
    Setting(
        "GITSTORE_MAX_CPU",
        "5",
        "Maximum seconds of CPU time that one request spends on parsing, checking, comparing and "
        "rendering definitions; a push may use eight times as much.",
        kinds.number(1, 600, "a number of seconds"),
    ),
    Setting(
        "GITSTORE_SECRET_KEY",
        "",
        "Key that encrypts the secrets of subscriptions and sources in the database. Of several keys, "
        "separated by commas, the first encrypts and all decrypt. If unset, a key is generated in the "
        "data folder, in the file `secret-key`. Keep a copy: without its key, no secret can be "
        "decrypted.",
        Kind(
            kinds.secret_key,
            "32 random bytes in URL-safe base64, as `openssl rand -base64 32 | tr +/ -_` prints them",
            secret=True,
        ),
    ),
    Setting(
        "GITSTORE_JWT_ISSUERS",
        "",
        "Issuers of users' JWTs, as a JSON list of objects with `issuer` (the claim `iss`), `audience` (the "
        "claim `aud`, by default `authenticated`), and `jwks_url` (for ES256 and RS256), `secret` (for "
        "HS256) or both. If unset, there are no users, only access tokens.",
        Kind(
            Issuers.parse,
            'a JSON list such as [{"issuer": "https://id.example", "jwks_url": "https://id.example/keys"}], '
            "each issuer once, with a jwks_url, a secret of 32 characters or more, or both",
            secret=True,
        ),
    ),
    Setting(
        "GITSTORE_CORS_ORIGINS",
        "",
        "Origins whose pages may call the API from a browser, separated by commas, or `*` for all.",
        Kind(Origins.parse, "origins such as https://app.example,http://localhost:5173, or *"),
    ),
    Setting(
        "GITSTORE_TRUSTED_PROXIES",
        "",
        "Addresses and networks of proxies, separated by commas, whose X-Forwarded-For names the client.",
        Kind(Proxies.parse, "addresses and networks, such as 127.0.0.1,10.0.0.0/8"),
    ),
    Setting(
        "GITSTORE_USER_PROJECTS",
        "0",
        "Number of projects that a signed-in user may create and own, archived ones included. With 0, only "
        "operators create projects.",
        kinds.number(0, 1_000_000),
    ),
    Setting(
        "GITSTORE_METRICS_TOKEN",
        "",
        "Bearer token that `/metrics` requires. Access tokens of projects are never accepted there.",
        Kind(
            kinds.token,
            "16 to 200 visible ASCII characters, such as `openssl rand -hex 24` prints",
            secret=True,
        ),
    ),
    Setting(
        "GITSTORE_METRICS_BIND",
        "",
        "Separate address at which `/metrics` is served; it is then 404 at the service's own. Without "
        "this and GITSTORE_METRICS_TOKEN, only clients on this machine, without a proxy, have access.",
        Kind(kinds.bind, "host:port, such as 127.0.0.1:9090"),
    ),
    Setting(
        "GITSTORE_EGRESS_ALLOW",
        "",
        "Non-public addresses that webhooks and fetches may reach: hosts with their port, and "
        "networks, separated by commas. For development and private networks.",
        Kind(Allowed.parse, "host:port and networks, such as localhost:9000,10.1.0.0/16"),
    ),
    Setting(
        "GITSTORE_BACKUP_PASSPHRASE_FILE",
        "",
        "File with the passphrase that encrypts the secrets of subscriptions and sources in a backup. "
        "Without a passphrase, a backup has no secrets.",
        Kind(kinds.file, "a file"),
    ),
    Setting(
        "GITSTORE_SLOW_REQUEST",
        "1000",
        "Milliseconds after which a request is logged as slow, with where the time went. 0 logs none.",
        kinds.number(0, 3_600_000, "a number of milliseconds"),
    ),
    Setting(
        "GITSTORE_LOG_FORMAT",
        "auto",
        "Format of the log: `text`, `json`, or `auto` (text on a terminal, JSON elsewhere).",
        kinds.one_of("auto", "text", "json"),
    ),
    Setting(
        "GITSTORE_LOG_LEVEL",
        "info",
        "Minimum level of the lines that are logged.",
        kinds.one_of("debug", "info", "warning", "error"),
    ),
)


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
    database_seconds: int = 60
    database_direct_url: str | None = None
    database_connections: int = 16
    read_only: bool = False
    read_url: str | None = None
    read_lag_seconds: int = 10
    secret_key: str | None = None
    jwt_issuers: Issuers | None = None
    cors_origins: Origins | None = None
    trusted_proxies: Proxies | None = None
    user_projects: int = 0
    metrics_token: str | None = None
    metrics_bind: Bind | None = None
    egress_allow: Allowed | None = None
    slow_request: int = 1000
    backup_passphrase_file: Path | None = None
    metrics_folder: Path | None = None
    """Folder in which the processes of one `serve` share their metrics; set by `serve` itself."""

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
                values[setting.field] = setting.kind.read(text) if text else None
            except (ValueError, KeyError):
                wrong[setting.name] = (
                    f"{setting.name} is {_shown(setting, text)}: expected {setting.kind.expected}"
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
    def ended_sessions(self) -> Path:
        """Folder that names the browser sessions that were ended by signing out."""
        return self.data / "ended-sessions"

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
    return {name: names[0] for name, names in close.items() if names}


def _shown(setting: Setting, text: str) -> str:
    """Return the given text for an error message, or a substitute if it may be a secret."""
    if match := _URL.match(text):
        scheme, user, rest = match.groups()
        return repr(f"{scheme}://{user + ':***@' if user is not None else ''}{rest}"[:200])
    if setting.kind.secret:
        return "something else (not shown: it may hold a password)"
    return repr(text[:200])


def _text(config: Config, field: str) -> str:
    holder, _, name = field.rpartition(".")
    value = getattr(config.limits if holder else config, name)
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _contradictions(values: Mapping[str, Any]) -> dict[str, str]:
    """Return errors of settings that are valid alone but not together."""
    wrong = {}
    if values["database_direct_url"] and not values["database_url"]:
        name = "DATABASE_DIRECT_URL"
        wrong[name] = f"{name} is set without DATABASE_URL: expected both, or neither"
    for name in ("GITSTORE_READ_ONLY", "GITSTORE_READ_URL"):
        if values[name.removeprefix("GITSTORE_").lower()] and not values["database_url"]:
            wrong[name] = f"{name} is set without DATABASE_URL: expected both, or neither"
    for smaller, larger in (("definition", "object"), ("object", "inflated")):
        low, high = values[f"limits.{smaller}"], values[f"limits.{larger}"]
        if low > high:
            name, other = f"GITSTORE_MAX_{smaller.upper()}", f"GITSTORE_MAX_{larger.upper()}"
            wrong[name] = f"{name} is {low} bytes: expected at most {other}, which is {high} bytes"
    if values["metrics_bind"] == values["bind"] and values["bind"].port:
        name = "GITSTORE_METRICS_BIND"
        wrong[name] = f"{name} is {values['bind']}, the address of GITSTORE_BIND: expected another port"
    return wrong
