"""The types of fixtures that start something: `start_postgres: StartPostgres`, and of `become`."""

from collections.abc import Callable

from tests.poolers import PgBouncer
from tests.proxy import Proxy
from tests.servers import PostgresServer, RedisServer

StartPostgres = Callable[..., PostgresServer]
StartRedis = Callable[..., RedisServer]
StartProxy = Callable[..., Proxy]
StartPgBouncer = Callable[..., PgBouncer]
Become = Callable[[str], None]
