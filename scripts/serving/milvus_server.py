"""A Milvus, standalone, on loopback."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import urllib.request
from contextlib import suppress
from pathlib import Path

import milvus
from pymilvus import MilvusClient, MilvusException

from serving.processes import free_port
from serving.redis_servers import until

_TRIES = 3  # it takes seconds until it listens, and another process may have taken one of its ports by then


class Milvus:
    """A separate server, from the package milvus.

    Attributes:
        url: its address.
        process: the server.
    """

    def __init__(self) -> None:
        """Start it with a folder for temporary files."""
        for _ in range(_TRIES):
            self._prepare()
            self._run()
            if until(lambda: self.process.poll() is not None or self._answers(), 180) and self.process.poll() is None:
                break
            said = (self._folder / "log").read_text()
            self.close()
        else:
            raise RuntimeError(f"Milvus ended {_TRIES} times: {said[:5000]}")

    def _prepare(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="milvus-"))
        config = milvus.MilvusServerConfig(data_dir=str(self._folder))
        for name in config.configurable_items:
            if name.endswith("_port"):
                config.configs[name] = free_port()
        self.url = f"http://127.0.0.1:{config.configs['proxy_port']}"
        config.set("log.level", "error")
        config.resolve()
        milvus._initialize_data_files(str(self._folder))
        self._metrics = free_port()
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))  # of its etcd, which has fixed ports otherwise
        listen = {"listen-client-urls": client, "advertise-client-urls": client, "listen-peer-urls": peer}
        cluster = {"name": "default", "initial-advertise-peer-urls": peer, "initial-cluster": f"default={peer}"}
        (self._folder / "etcd.yaml").write_text(json.dumps({**listen, **cluster}))

    def start(self) -> None:
        """Start it with what is on its disk, and wait until it answers."""
        self._run()
        if not until(self._answers, 180) or not until(self._loaded, 180):
            raise RuntimeError((self._folder / "log").read_text()[-5000:])

    def _run(self) -> None:
        programs = self._folder / "bin"
        environment = {
            **os.environ,
            "DEPLOY_MODE": "STANDALONE",
            "ETCD_CONFIG_PATH": str(self._folder / "etcd.yaml"),
            "METRICS_PORT": str(self._metrics),
            "MILVUS_RUN_DIR": str(self._folder / "run"),
            "LD_LIBRARY_PATH": str(programs),
        }
        with (self._folder / "log").open("ab") as log:
            command = [str(programs / "milvus"), "run", "standalone"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=self._folder)

    def close(self) -> None:
        """End it and remove its files."""
        self.kill()
        shutil.rmtree(self._folder)

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """Stop it, so that connections stay open and nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def tables(self) -> set[str]:
        """Return the names of the collections of indexes."""
        client = MilvusClient(self.url, timeout=30)
        try:
            return {name for name in client.list_collections() if name.startswith("fm_recall_")}
        finally:
            client.close()

    def lose(self, collection: str, first: int) -> None:
        """Delete the rows of a collection from one on; wait until they are gone."""
        client = MilvusClient(self.url, timeout=30)
        try:
            client.delete(collection, filter=f"row >= {first}")
            until(lambda: _count(client, collection) == first)
        finally:
            client.close()

    def memory(self) -> float:
        """Return the MB that it holds."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1000

    def _loaded(self) -> bool:
        """Return whether the collections that were there before are searched again."""
        with suppress(MilvusException):
            client = MilvusClient(self.url, timeout=30)
            try:
                return all(_count(client, name) >= 0 for name in client.list_collections())
            finally:
                client.close()
        return False

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            return False
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics}/healthz", timeout=5) as answer:
                return b"OK" in answer.read()
        except OSError:
            return False


def _count(client: MilvusClient, collection: str) -> int:
    found = client.query(collection, filter="", output_fields=["count(*)"], consistency_level="Strong")
    return int(found[0]["count(*)"])
