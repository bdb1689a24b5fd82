"""Settings: values, defaults, and messages about invalid ones."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from gitstore.errors import Code, GitstoreError
from gitstore.model import Limits
from service.config import METRICS_FOLDER, SETTINGS, Config, misspelt
from service.setting_kinds import Bind

WRONG = {
    "DATABASE_URL": "mysql://root:hunter2@db/flows",
    "DATABASE_DIRECT_URL": "mysql://root:hunter2@db/flows",
    "GITSTORE_READ_ONLY": "yes",
    "GITSTORE_READ_URL": "mysql://root:hunter2@db/flows",
    "GITSTORE_READ_LAG_SECONDS": "0",
    "GITSTORE_DATABASE_CONNECTIONS": "1",
    "GITSTORE_BIND": "localhost",
    "GITSTORE_PUBLIC_URL": "ftp://files.example",
    "GITSTORE_DATABASE_SECONDS": "0",
    "GITSTORE_WORKERS": "0",
    "GITSTORE_THREADS": "many",
    "GITSTORE_RECONCILE_SECONDS": "-1",
    "GITSTORE_KEEP_DAYS": "0",
    "GITSTORE_MAX_PACK": "16MB",
    "GITSTORE_MAX_IMPORT": "0",
    "GITSTORE_MAX_PACK_OBJECTS": "1e6",
    "GITSTORE_MAX_COMMANDS": "0",
    "GITSTORE_MAX_INFLATED": "0",
    "GITSTORE_MAX_OBJECT": "4 megabytes",
    "GITSTORE_MAX_DEFINITION": "-1",
    "GITSTORE_MAX_ANY_DEFINITION": "0",
    "GITSTORE_MAX_DEPTH": "100000",
    "GITSTORE_MAX_NODES": "\u0663",
    "GITSTORE_MAX_CPU": "0",
    "GITSTORE_SECRET_KEY": "correct horse battery staple",
    "GITSTORE_USER_PROJECTS": "many",
    "GITSTORE_JWT_ISSUERS": '[{"issuer": "https://example.com", "secret": "short"}]',
    "GITSTORE_CORS_ORIGINS": "https://app.example/",
    "GITSTORE_TRUSTED_PROXIES": "proxy.example",
    "GITSTORE_METRICS_TOKEN": "guess me",
    "GITSTORE_METRICS_BIND": "9090",
    "GITSTORE_EGRESS_ALLOW": "localhost",
    "GITSTORE_BACKUP_PASSPHRASE_FILE": "/nonexistent/passphrase",
    "GITSTORE_SLOW_REQUEST": "1s",
    "GITSTORE_LOG_FORMAT": "xml",
    "GITSTORE_LOG_LEVEL": "chatty",
}


def refusal(environ: dict[str, str]) -> GitstoreError:
    with pytest.raises(GitstoreError) as caught:
        Config.from_env(environ)
    assert caught.value.code is Code.CONFIG
    return caught.value


def test_defaults() -> None:
    config = Config.from_env({})
    assert config.database_url is None
    assert config.data == Path("gitstore-data").resolve()
    assert (config.bind, config.public_url) == (Bind("127.0.0.1", 8080), "http://127.0.0.1:8080")
    assert (config.workers, config.threads, config.reconcile_seconds) == (2, 4, 60)
    assert config.limits == Limits()


def test_an_empty_variable_counts_as_unset() -> None:
    """Compose files pass unset variables so."""
    assert Config.from_env({"DATABASE_URL": "", "GITSTORE_BIND": " "}) == Config.from_env({})


def test_every_limit_is_a_setting_with_the_default_of_the_store() -> None:
    """Except the memory of a child process, which is no setting."""
    known = {setting.field for setting in SETTINGS}
    assert {f"limits.{limit.name}" for limit in fields(Limits)} - known == {"limits.memory"}


def test_all_invalid_settings_are_reported_at_once(tmp_path: Path) -> None:
    """Each with its name, the given and the expected value."""
    file = tmp_path / "file"
    file.touch()
    wrong = {**WRONG, "GITSTORE_DATA": str(file)}
    error = refusal(wrong)
    assert error.data["settings"] == sorted(setting.name for setting in SETTINGS) == sorted(wrong)
    for setting, line in zip(SETTINGS, error.message.splitlines(), strict=True):
        assert line.startswith(f"{setting.name} is ")
        assert line.endswith(f": expected {setting.kind.expected}")


@pytest.mark.parametrize(
    "given",
    [
        "mysql://root:hunter2@db/flows",
        "postgres//root:hunter2@db",
        "mysql://root:hun@ter2@db/flows?password=hunter2",
        "host=db passwort=hunter2",
        "password=hunter2 host",
    ],
)
def test_messages_contain_no_password(given: str) -> None:
    """Whatever is wrong with DATABASE_URL."""
    message = refusal({"DATABASE_URL": given}).message
    assert "ter2" not in message
    assert message.startswith("DATABASE_URL is ")


def test_messages_contain_no_password_of_another_url() -> None:
    message = refusal({"GITSTORE_PUBLIC_URL": "https://me:hunter2@gitstore.example"}).message
    assert "hunter2" not in message
    assert "https://me:***@gitstore.example" in message


@pytest.mark.parametrize(
    ("text", "size"),
    [("1000", 1000), ("64k", 65536), ("16M", 2**24), ("16MiB", 2**24), ("1 GiB", 2**30), ("1g", 2**30)],
)
def test_sizes_are_bytes_or_powers_of_1024(text: str, size: int) -> None:
    """`M` and `MiB` are the same; `MB`, which is not clear, is refused (see above)."""
    assert Config.from_env({"GITSTORE_MAX_PACK": text}).limits.pack == size


def test_contradicting_limits_are_refused() -> None:
    """A definition is an object, and an object is a part of a push."""
    error = refusal({"GITSTORE_MAX_DEFINITION": "8M", "GITSTORE_MAX_INFLATED": "2M"})
    assert error.data["settings"] == ["GITSTORE_MAX_DEFINITION", "GITSTORE_MAX_OBJECT"]


@pytest.mark.parametrize(
    ("text", "bind", "url"),
    [
        ("0.0.0.0:80", Bind("0.0.0.0", 80), "http://127.0.0.1:80"),  # noqa: S104 (only read)
        ("[::1]:8080", Bind("::1", 8080), "http://[::1]:8080"),
        ("[::]:8080", Bind("::", 8080), "http://[::1]:8080"),
        ("gitstore.example:0", Bind("gitstore.example", 0), "http://gitstore.example:0"),
    ],
)
def test_the_public_url_defaults_to_the_address(text: str, bind: Bind, url: str) -> None:
    config = Config.from_env({"GITSTORE_BIND": text})
    assert (config.bind, config.public_url, str(config.bind)) == (bind, url, text)


def test_the_public_url_has_no_trailing_slash() -> None:
    config = Config.from_env({"GITSTORE_PUBLIC_URL": "https://flows.example/git/"})
    assert config.public_url == "https://flows.example/git"


def test_options_override_the_environment() -> None:
    """By the same rules; None is an option that was not given, and an empty one unsets a variable."""
    environ = {"GITSTORE_WORKERS": "3", "GITSTORE_THREADS": "9", "DATABASE_URL": "host=db"}
    overrides = {"GITSTORE_WORKERS": "5", "GITSTORE_THREADS": None, "DATABASE_URL": ""}
    config = Config.from_env(environ, overrides)
    assert (config.workers, config.threads, config.database_url) == (5, 9, None)
    with pytest.raises(GitstoreError, match="GITSTORE_WORKERS is '0'"):
        Config.from_env(environ, {"GITSTORE_WORKERS": "0"})


def test_a_child_gets_the_same_settings() -> None:
    """`environment` yields an equal Config in the child."""
    environ = {
        "DATABASE_URL": "postgresql://me:secret@db:5432/flows",
        "GITSTORE_BIND": "[::1]:99",
        "GITSTORE_MAX_PACK": "1M",
        "GITSTORE_PUBLIC_URL": "https://flows.example",
    }
    config = Config.from_env(environ)
    again = Config.from_env(config.environment(**{METRICS_FOLDER: "/run/figures"}))
    assert again.metrics_folder == Path("/run/figures")
    assert again.environment() == config.environment()


def test_a_misspelt_setting_is_found() -> None:
    """Variables that Kubernetes sets for a service called gitstore are not mistaken for settings."""
    environ = {"GITSTORE_WORKER": "4", "GITSTORE_PORT": "tcp://10.0.0.1:80", "GITSTORE_SERVICE_HOST": "x"}
    assert misspelt(environ) == {"GITSTORE_WORKER": "GITSTORE_WORKERS"}
