"""`gitstore serve`: start, supervision and stop of its processes, with a stub of the application."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import stat
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from gitstore.errors import UnavailableError
from service.access import is_token
from service.app import create_app
from service.config import Config
from service.context import EXTENSION
from service.run.bootstrap import Setup, five_lines, greeting
from sync.catalog import Project
from sync.embedded.server import EmbeddedPostgres
from tests.conftest import temporary_folder
from tests.service.serve_process import STUB, Running, alive, gitstore, running, until


@pytest.fixture
def folder(ram_path: Path) -> Path:
    """Folder in which a service runs."""
    return ram_path


@pytest.fixture
def embedded(folder: Path, cluster: Path) -> Iterator[Running]:
    """A service with an embedded Postgres, whose cluster exists."""
    with running(folder, STUB, cluster) as service:
        yield service.ready()


@pytest.fixture(scope="module")
def shared(cluster: Path) -> Iterator[Running]:
    """A service with an embedded Postgres, for tests that do not change it."""
    with temporary_folder() as folder, running(folder, STUB, cluster, GITSTORE_WORKER="4") as service:
        yield service.ready()


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 (our own address)
        return bytes(answer.read())


def projects(conninfo: str) -> list[tuple[str, str]]:
    with psycopg.connect(conninfo) as connection:
        return connection.execute("select id::text, slug from gitstore.projects").fetchall()


def postgres_of(service: Running) -> EmbeddedPostgres:
    return EmbeddedPostgres(service.data / "postgres")


def test_a_start_and_a_stop(folder: Path) -> None:
    """On an empty machine: Postgres, HTTP and the worker start; SIGTERM ends all of them, with status 0."""
    with running(folder, STUB) as service:
        assert get(service.ready().url) == b"here\n"
        assert {service.child("postgres -D"), service.child("service.run.web"), service.child("worker")}
        assert [slug for _, slug in projects(postgres_of(service).conninfo())] == ["default"]
        assert service.stop() == 0
        until(service.gone)
        assert not postgres_of(service).running()


def test_only_the_operator_can_read_the_owner_s_token(shared: Running) -> None:
    """One line, mode 0600; output that is no terminal names the file, not the token."""
    file = shared.data / "owner-token"
    token = file.read_text()
    assert is_token(token.removesuffix("\n"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert str(file) in shared.output
    assert token.strip() not in shared.output + shared.log
    assert not stat.S_IMODE(shared.data.stat().st_mode) & 0o066


def test_a_stop_finishes_requests(folder: Path, make_database: Callable[..., str]) -> None:
    """A request in progress at SIGTERM is answered before the service ends."""
    answers: list[bytes] = []
    with running(folder, STUB, DATABASE_URL=make_database()) as service:
        url = f"{service.ready().url}/wait"
        client = threading.Thread(target=lambda: answers.append(get(url)))
        client.start()
        until((service.data / "waiting").exists)
        service.tree()
        service.process.send_signal(signal.SIGTERM)
        until(lambda: "stopping" in service.log)
        (service.data / "go").touch()
        client.join()
        assert answers == [b"here\n"]
        assert service.process.wait(60) == 0


def test_a_restart_keeps_project_and_token(embedded: Running) -> None:
    """After a stop, a kill of the supervisor alone, and a kill of all processes; none of them is left."""
    before = projects(postgres_of(embedded).conninfo())
    token = (embedded.data / "owner-token").read_bytes()
    bind, service = f"127.0.0.1:{embedded.port}", embedded
    with ExitStack() as stack:
        for end in ("stop", "kill supervisor", "kill tree"):
            if end == "stop":
                assert service.stop(signal.SIGINT) == 0
            else:
                service.kill(tree=end == "kill tree")
            ended, service = service, stack.enter_context(running(embedded.folder, STUB, GITSTORE_BIND=bind))
            assert get(service.ready().url) == b"here\n"
            assert projects(postgres_of(service).conninfo()) == before
            assert (service.data / "owner-token").read_bytes() == token
            assert "note:" not in service.output
            until(ended.gone)
        assert service.stop(signal.SIGHUP) == 0


def kill(pid: int) -> None:
    """Kill a process, and wait until it has ended: until then, it may accept a connection."""
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid))


def test_killed_children_are_restarted(embedded: Running) -> None:
    """Requests are served meanwhile. Postgres returns at its address, and the web server on its socket."""
    until(lambda: any("worker" in command for command in embedded.tree().values()))
    worker = embedded.child("worker")
    kill(worker)
    until(lambda: "worker_exited" in embedded.log)
    assert get(embedded.url) == b"here\n"
    until(lambda: [p for p, command in embedded.tree().items() if "worker" in command] not in ([], [worker]))

    conninfo = postgres_of(embedded).conninfo()
    kill(embedded.child("postgres -D"))
    until(lambda: "postgres_restarted" in embedded.log)
    assert projects(conninfo)

    web = embedded.child("import main")
    (killed,) = embedded.children(web)
    kill(killed)
    assert get(embedded.url) == b"here\n"
    until(lambda: embedded.children(web) not in ([], [killed]))
    assert "web_process_exited" in embedded.log

    serving = embedded.children(web)
    kill(web)
    until(lambda: not any(map(alive, serving)))
    assert get(embedded.url) == b"here\n"
    assert embedded.child("import main") != web
    assert "web_exited" in embedded.log
    assert embedded.stop() == 0


def test_a_hanging_serving_process_is_replaced(folder: Path, make_database: Callable[..., str]) -> None:
    """A stopped process, like one that is stuck in C code, sends no heartbeat."""
    impatient = STUB[-1].replace(
        "from service.run.web import",
        "from service.run import web; web.HANGS_SECONDS = 3; from service.run.web import",
    )
    with running(folder, (*STUB[:-1], impatient), DATABASE_URL=make_database()) as service:
        (serving,) = service.ready().children(service.child("import main"))
        os.kill(serving, signal.SIGSTOP)
        assert get(service.url) == b"here\n"
        assert "web_process_hung" in service.log


def test_building_the_application_connects_to_nothing(folder: Path) -> None:
    """It is built before the serving processes are forked, and they may share no thread and no connection."""
    config = Config.from_env(
        {"DATABASE_URL": "postgresql:///none?host=/nowhere", "GITSTORE_DATA": str(folder)}
    )
    threads = threading.enumerate()
    app = create_app(config)
    assert threading.enumerate() == threads
    with pytest.raises(UnavailableError):
        app.extensions[EXTENSION].database.ping()


def test_an_application_that_does_not_load_stops_the_start(
    folder: Path, make_database: Callable[..., str]
) -> None:
    """The log has the error; the exit status is 1."""
    broken = (*STUB[:-1], STUB[-1].replace("stub_app:create_app", "stub_app:nothing"))
    with running(folder, broken, DATABASE_URL=make_database()) as service:
        assert service.process.wait(60) == 1
        assert "has no attribute 'nothing'" in service.log
        assert "the web server exited with" in service.log


def test_a_port_in_use_stops_the_start(folder: Path) -> None:
    """The message names the setting; nothing was created."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = {"GITSTORE_BIND": address, "GITSTORE_DATA": str(folder / "data")}
        done = gitstore("serve", settings=settings)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: GITSTORE_BIND is {address}, and another program listens there")
    assert not (folder / "data/postgres").exists()


def test_two_services_do_not_share_an_embedded_postgres(shared: Running) -> None:
    """The second one exits and names the process of the first, which continues."""
    settings = {"GITSTORE_BIND": "127.0.0.1:0", "GITSTORE_DATA": str(shared.data)}
    done = gitstore("serve", settings=settings)
    assert done.returncode == 1
    assert f"process {shared.process.pid} runs the embedded Postgres" in done.stderr
    assert get(shared.url) == b"here\n"


def test_services_share_a_postgres(folder: Path, make_database: Callable[..., str]) -> None:
    """Two that start at once create one project and one token, and both serve."""
    url = make_database()
    (folder / "second").mkdir()
    with (
        running(folder, STUB, DATABASE_URL=url) as first,
        running(folder / "second", STUB, DATABASE_URL=url, GITSTORE_DATA=str(first.data)) as second,
    ):
        assert get(first.ready().url) == get(second.ready().url) == b"here\n"
        assert len(projects(url)) == 1
        with psycopg.connect(url) as connection:
            assert connection.execute("select count(*) from gitstore.access_tokens").fetchone() == (1,)


def test_an_interrupted_start_leaves_no_process(folder: Path) -> None:
    """SIGTERM at several moments of a start; the next start works."""
    for pause in (0.3, 1.2, 2.4):
        with running(folder, STUB) as service:
            threading.Event().wait(pause)
            assert service.stop() in (0, -signal.SIGTERM)
            until(service.gone)
    with running(folder, STUB) as service:
        assert get(service.ready().url) == b"here\n"


def test_invalid_settings_stop_the_start(folder: Path) -> None:
    """All are reported, without secrets, and nothing is created."""
    settings = {"GITSTORE_WORKERS": "none", "GITSTORE_BIND": "here", "GITSTORE_DATA": str(folder / "data")}
    done = gitstore("serve", settings={**settings, "DATABASE_URL": "mysql://u:hunter2@h/d"})
    assert done.returncode == 1
    first, second, third = done.stderr.splitlines()
    assert first.startswith("error: DATABASE_URL is 'mysql://u:***@h/d': expected")
    assert second.strip().startswith("GITSTORE_BIND is 'here': expected host:port")
    assert third.strip().startswith("GITSTORE_WORKERS is 'none': expected a number")
    assert not (folder / "data").exists()


def test_a_misspelt_setting_is_logged(shared: Running) -> None:
    """The service starts, as the variable may be for another program."""
    assert '"given": "GITSTORE_WORKER", "meant": "GITSTORE_WORKERS"' in shared.log


def test_a_start_waits_for_postgres(folder: Path) -> None:
    """As when all services of a machine start at once."""
    server = EmbeddedPostgres(folder / "postgres")
    url = server.start()
    server.stop()
    with running(folder, STUB, DATABASE_URL=url) as service:
        until(lambda: "waiting_for_postgres" in service.log)
        server.start()
        try:
            assert get(service.ready().url) == b"here\n"
            assert service.stop() == 0
        finally:
            server.stop()


def test_a_start_gives_up_a_database_that_does_not_answer(folder: Path) -> None:
    """In one sentence with the cause, after the time that a setting gives; messages tell that it waits."""
    settings = {
        "GITSTORE_BIND": "127.0.0.1:0",
        "GITSTORE_DATA": str(folder / "data"),
        "GITSTORE_DATABASE_SECONDS": "6",
        "DATABASE_URL": "postgresql://me:hunter2@127.0.0.1:1/x",
    }
    done = gitstore("serve", settings=settings)
    assert done.returncode == 1
    assert done.stderr.count("waiting_for_postgres") == 2
    assert "error: Postgres at DATABASE_URL did not answer within 6 s\n" in done.stderr
    assert "refused" in done.stderr.splitlines()[-1]
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_does_not_exist_stops_the_start_at_once(
    folder: Path, make_database: Callable[..., str]
) -> None:
    """In one sentence, as for other addresses that never work (tests/sync/test_poolers.py)."""
    settings = {
        "GITSTORE_BIND": "127.0.0.1:0",
        "GITSTORE_DATA": str(folder / "data"),
        "DATABASE_URL": make_conninfo(make_database(), dbname="nope"),
    }
    done = gitstore("serve", settings=settings)
    assert done.returncode == 1
    first, *_ = done.stderr.splitlines()
    assert first == "error: DATABASE_URL: there is no database of that name"
    assert "waiting_for_postgres" not in done.stderr


def test_a_data_folder_that_cannot_be_written_stops_the_start(folder: Path) -> None:
    settings = {"GITSTORE_BIND": "127.0.0.1:0", "GITSTORE_DATA": "/proc/sys"}
    done = gitstore("serve", settings=settings)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the data folder /proc/sys can't be used (")
    assert "Traceback" not in done.stderr


def test_signals_of_a_terminal_reach_the_supervisor_alone(shared: Running) -> None:
    """Its children are in sessions of their own, so that Ctrl-C does not reach them."""
    sessions = {os.getsid(pid) for pid in shared.tree()}
    assert os.getsid(shared.process.pid) not in sessions
    assert alive(shared.process.pid)


def paste(service: Running, folder: Path) -> str:
    """Run the printed lines in a shell of a user without configuration of git; return its stderr."""
    lines = service.output.partition("into a shell:\n\n")[2].strip()
    assert len(lines.splitlines()) == 5
    home = folder / "home"
    home.mkdir(parents=True)
    done = subprocess.run(
        ["sh"],
        input=lines + "\n",
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert not any(home.iterdir())
    return done.stderr


def test_the_five_lines_publish_a_workflow(folder: Path, tmp_path: Path) -> None:
    """With the real application. After a crash, the lines name another workflow, and the first exists."""
    with running(folder) as service:
        output = paste(service.ready(), tmp_path / "one")
        assert "remote: hello: draft saved, 1 node" in output
        assert f"remote: published hello v1: {service.url}/" in output
        port = service.port
        service.kill(tree=True)
    with running(folder, GITSTORE_BIND=f"127.0.0.1:{port}") as service:
        assert "remote: published hello-2 v1" in paste(service.ready(), tmp_path / "two")
        for slug, owner in (("hello", "one"), ("hello-2", "two")):
            pasted = (tmp_path / owner / slug / "workflow.yaml").read_bytes()
            assert definition(service, slug) == pasted
        settings = {"GITSTORE_DATA": str(service.data)}
        assert gitstore("verify", settings=settings).stderr == "no differences in 1 project\n"


def definition(service: Running, slug: str) -> bytes:
    token = (service.data / "owner-token").read_text().strip()
    asked = urllib.request.Request(f"{service.url}/workflows/{slug}/versions/1/definition")  # noqa: S310
    asked.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310 (our own address)
        return bytes(answer.read())


def test_the_five_lines_quote_the_data_folder() -> None:
    """A shell takes spaces, quotes and dollars in its name literally."""
    file = Path('/tmp/it\'s $HOME "here"/owner-token')  # noqa: S108 (nothing is there)
    first, *_ = five_lines("http://127.0.0.1:8080", file, "hello")
    words = shlex.split(first.partition(" && ")[0])
    assert words[:4] == ["git", "clone", "-c", "credential.helper="]
    assert words[-2:] == ["http://127.0.0.1:8080/default.git", "hello"]
    (helper,) = (word for word in words if word.startswith("credential.helper=!"))
    assert shlex.split(helper.partition("$(cat ")[2].rpartition(")")[0])[0] == str(file)


@pytest.mark.parametrize(
    ("url", "direct"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://127.9.8.7", True),
        ("http://[::1]:8080/below", True),
        ("http://localhost:8080", True),
        ("https://gitstore.example", False),
        ("http://10.0.0.1:8080", False),
        ("http://127.0.0.1.example", False),
    ],
)
def test_the_five_lines_bypass_a_proxy_for_loopback_only(url: str, direct: bool) -> None:
    """git uses http_proxy even for loopback addresses, where no proxy reaches this service."""
    first, *_ = five_lines(url, Path("token"), "hello")
    assert ("http.proxy=" in shlex.split(first.partition(" && ")[0])) == direct


def test_the_token_is_shown_on_a_terminal_only(tmp_path: Path) -> None:
    """Other output may be stored."""
    config = Config.from_env({"GITSTORE_DATA": str(tmp_path)})
    project = Project(
        uuid4(), "default", "Default", None, "meshhook", datetime.now(UTC), None, "meshhook", None, (), False
    )
    setup = Setup(project, "gst_secret", ("something to read",))
    assert "gst_secret" in greeting(config, setup, "hello", terminal=True)
    assert "gst_secret" not in greeting(config, setup, "hello", terminal=False)
    assert "note: something to read" in greeting(config, setup, "hello", terminal=False)
    without = greeting(config, replace(setup, token=None), "hello", terminal=True)
    assert "git clone" not in without
