"""A password known to nobody else is in no log, dump, command line, answer or queue."""

import base64
import hashlib
import hmac
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import redis

from monitor.local.machine import free_port
from tests.fixtures import StartPostgres
from tests.system.cluster import Cluster
from tests.waiting import eventually

MakeCluster = Callable[..., Cluster]
CANARY = "Kanarie/vogel+7%c!"


def forms_of(secret: str) -> list[bytes]:
    """Return every form a password could leak in."""
    raw = secret.encode()
    return [
        raw,
        quote(secret, safe="").encode(),
        base64.b64encode(raw).rstrip(b"="),
        base64.urlsafe_b64encode(raw).rstrip(b"="),
        repr(secret)[1:-1].encode(),
    ]


def verifier_of(server: Any, role: str) -> list[bytes]:
    """Return the role's SCRAM verifier as the server stores it, and its keys."""
    verifier = server.execute(f"select rolpassword from pg_authid where rolname = '{role}'")[0][0]
    iterations, salt = verifier.split("$")[1].split(":")
    salted = hashlib.pbkdf2_hmac("sha256", CANARY.encode(), base64.b64decode(salt), int(iterations))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return [
        verifier.encode(),
        *verifier.split("$")[2].encode().split(b":"),
        base64.b64encode(client_key),
    ]


def command_lines() -> bytes:
    lines = b""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines += path.read_bytes()
        except OSError:
            continue
    return lines


def redis_dump(url: str) -> bytes:
    client = redis.Redis.from_url(url)
    dump = b""
    for key in client.scan_iter(count=1000):
        kind = client.type(key)
        read: dict[bytes, Callable[[], Any]] = {
            b"string": lambda key=key: client.get(key),
            b"hash": lambda key=key: client.hgetall(key),
            b"stream": lambda key=key: client.xrange(key),
            b"set": lambda key=key: client.smembers(key),
            b"zset": lambda key=key: client.zrange(key, 0, -1),
            b"list": lambda key=key: client.lrange(key, 0, -1),
        }
        dump += key + repr(read[kind]()).encode()
    client.close()
    return dump


async def test_the_canary_is_found_nowhere(
    make_cluster: MakeCluster, start_postgres: StartPostgres, postgres_server: Any
) -> None:
    cluster, server, port = make_cluster(workers=2), start_postgres(), free_port()
    server.execute(f"create role canary login password '{CANARY}'")
    cluster.start("web", PORT=str(port))
    web = httpx.Client(
        base_url=f"http://127.0.0.1:{port}",
        headers={"Authorization": "Bearer token-for-tests"},
        trust_env=False,
    )
    await eventually(lambda: _answers(web), within=20, every=0.2)
    secret = quote(CANARY, safe="")
    url = f"postgresql://canary:{secret}@{server.host}:{server.port}/postgres"
    answers = [web.post("/api/v1/databases", json={"name": "canary", "url": url})]
    assert answers[0].status_code == 201
    for malformed in (
        url.replace("postgresql", "mysql"),
        url.replace(f":{server.port}", ":port"),
        url.replace(server.host, "[bad"),
        url + "?passfile=/etc/passwd",
        url + "?sslmode=" + secret,
        f"postgresql://:{secret}@/",
    ):
        answers.append(web.post("/api/v1/databases", json={"name": "broken", "url": malformed}))
        assert answers[-1].status_code == 422
    wrong = url.replace("canary:", "nobody:")
    answers.append(web.post("/api/v1/databases", json={"name": "wrong", "url": wrong}))
    await eventually(lambda: cluster.state("canary") == "available", within=30)
    await eventually(lambda: cluster.state("wrong") == "locked_out", within=30)
    cluster.worker_of(cluster.hash("canary")["owner"]).kill()
    await eventually(lambda: cluster.state("canary") == "available", within=5)
    for path in (
        "/last_observation",
        "/api/v1/databases",
        "/api/v1/workers",
        "/metrics",
        "/readyz",
        "/openapi.json",
    ):
        answers.append(web.get(path))
        assert answers[-1].status_code == 200
    answers.append(web.get("/api/v1/databases/canary/transitions"))
    web.close()
    dump = subprocess.run(
        [postgres_server.binaries / "pg_dump", cluster.database_url],
        capture_output=True,
        check=True,
        env=os.environ,
    ).stdout
    assert b"canary" in dump
    haystacks = {
        "logs": b"".join(role.log.read_bytes() for role in cluster.roles),
        "redis": redis_dump(cluster.redis_url),
        "postgres": dump,
        "command lines": command_lines(),
        "answers": b"".join(answer.content + repr(answer.headers).encode() for answer in answers),
    }
    for place, haystack in haystacks.items():
        assert haystack, place
        for needle in forms_of(CANARY) + verifier_of(server, "canary"):
            assert needle not in haystack, f"the canary leaks into {place}"


def _answers(web: httpx.Client) -> bool:
    try:
        return web.get("/livez").status_code == 200
    except httpx.HTTPError:
        return False
