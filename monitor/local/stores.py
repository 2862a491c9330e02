"""The stores of `feeler up`: servers of ours for those that nobody gave an address of.

`monitor.local.up` imports this.
"""

import time
from dataclasses import replace
from pathlib import Path

from monitor.config import Settings
from monitor.local.embedded import Postgres, Redis, Server
from monitor.local.processes import Child, say


class Stores:
    """The servers that this run needs, in `folder`."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._postgres = None if settings.database_url else Postgres(folder / "postgres")
        self._redis = None if settings.redis_url else Redis(folder / "redis")
        servers: list[Server | None] = [self._postgres, self._redis]
        self._servers = [server for server in servers if server]

    def start(self) -> None:
        """Set them up where they are new, start them all, and wait until they answer."""
        began = time.monotonic()
        for server in self._servers:
            server.prepare()
            made = f", made by {server.made_by}" if server.made_by else ""
            say("up", f"{server.kind}: {server.binaries}, data in {server.folder}{made}")
        prepared = time.monotonic()
        for server in self._servers:
            server.start()
        for server in self._servers:
            server.wait_ready()
        setting_up, starting = prepared - began, time.monotonic() - prepared
        say("up", f"stores answer: {setting_up:.1f} s to set up, {starting:.1f} s to start")

    def addressed(self, settings: Settings) -> Settings:
        """Return the settings with the addresses of started servers."""
        database_url = self._postgres.url() if self._postgres else settings.database_url
        redis_url = self._redis.url() if self._redis else settings.redis_url
        cache_url = settings.cache_url or redis_url
        return replace(
            settings, database_url=database_url, redis_url=redis_url, cache_url=cache_url
        )

    def processes(self) -> list[Child]:
        """Return the started servers as processes to keep alive."""
        return [
            Child(
                server.kind,
                server.start,
                server.stop_signal,
                last_line=server.last_line,
                process=server.process,
            )
            for server in self._servers
        ]

    def stop(self) -> None:
        """Stop what runs of them."""
        for server in self._servers:
            server.stop()
