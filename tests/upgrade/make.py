"""Make the base that later releases are upgraded from: `uv run python -m tests.upgrade.make`.

Run it once, at a release. It writes `tests/upgrade/<version>/`: `database.sql`, which pg_dump makes of the
schema and its rows, and `data.tar.gz`, the data folder. A base that is released never changes.
"""

from __future__ import annotations

import re
import subprocess
import tarfile
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from sync.embedded.binaries import find_binaries
from sync.embedded.server import SUPERUSER, EmbeddedPostgres
from sync.migrate import migrate
from tests.conftest import database, temporary_folder
from tests.service.api.conftest import Client, House, definition, opened, yaml

BASES = Path(__file__).parent
DUMP, DATA = "database.sql", "data.tar.gz"

# Commands of psql, and a setting that Postgres 15 lacks.
_NOT_FOR_ALL = re.compile(r"^(\\(un)?restrict .*|SET transaction_timeout = 0;)\n", re.MULTILINE)


def main() -> None:
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        server = EmbeddedPostgres(folder / "postgres")
        server.start()
        stack.callback(server.stop)
        admin = server.conninfo(user=SUPERUSER, dbname=SUPERUSER)
        template = stack.enter_context(database(admin))
        migrate(template)
        house = stack.enter_context(opened(admin, str(conninfo_to_dict(template)["dbname"])))
        fill(house)
        write(house, admin, BASES / version("gitstore"))


def fill(house: House) -> None:
    """Leave a workflow of each kind in two projects, and a row in every table that a user can fill."""
    owner = house.client("owner")
    released(owner, "order-sync", 3)
    draft = {"definition": definition("https://draft.example/"), "message": "Not ready yet"}
    assert owner.post("/workflows/order-sync/versions", json=draft).status_code == 201
    released(owner, "held", 2)
    body = {"version": 1, "hold": True, "message": "v2 fails"}
    assert owner.put("/workflows/held/current", json=body).status_code == 200
    released(owner, "discarded", 1)
    assert owner.post("/workflows/discarded/versions", data=yaml(), type="text/yaml").status_code == 201
    assert owner.delete("/workflows/discarded/versions/draft").status_code == 204
    owner.create("never-published", definition=definition(""))
    released(house.client("publisher", house.other), "any-rules", 1)
    house.client("viewer")
    token = owner.post("/tokens", json={"name": "revoked", "role": "editor"}).json["id"]
    assert owner.delete(f"/tokens/{token}").status_code == 204
    for path, url in (("/subscriptions", "https://a.example/hook"), ("/sources", "https://a.example/a.git")):
        assert owner.post(path, json={"url": url}).status_code == 201


def released(client: Client, slug: str, count: int) -> None:
    """Create a workflow with `count` versions, the first of them in YAML with comments."""
    client.create(slug, name=slug.title(), definition=yaml().decode())
    assert client.publish(slug, message="The first").status_code == 201
    for number in range(2, count + 1):
        assert client.publish(slug, f"https://{number}.example/").status_code == 201


def write(house: House, admin: str, base: Path) -> None:
    base.mkdir()
    place = conninfo_to_dict(admin)
    command = [
        f"{find_binaries()}/bin/pg_dump", "--schema=gitstore", "--column-inserts", "--rows-per-insert=100",
        f"--host={place['host']}", f"--port={place['port']}", f"--username={SUPERUSER}",
        str(conninfo_to_dict(house.database.conninfo)["dbname"]),
    ]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    (base / DUMP).write_text(_NOT_FOR_ALL.sub("", done.stdout))
    with tarfile.open(base / DATA, "w:gz") as archive:
        archive.add(house.config.data, "data", filter=anonymous)


def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main()
