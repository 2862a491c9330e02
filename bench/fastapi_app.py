"""What a user would write in an hour: FastAPI, a pydantic model, one redis.asyncio call."""

import os

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from redis.asyncio import Redis

from monitor.live.keys import database_key


class LastObservation(BaseModel):
    """Some of what feeler answers."""

    name: str
    state: str
    observed_at: float
    cause: str
    connections: int | None = None
    connections_max: int | None = None
    xact_rate: float | None = None
    cache_hit_rate: float | None = None
    db_size: int | None = None
    row_count: int | None = None
    owner: str | None = None


app = FastAPI()
redis = Redis.from_url(os.environ["REDIS_URL"], decode_responses=True)


@app.get("/last_observation/{name}")
async def one(name: str) -> LastObservation:
    """Return one database's hash."""
    stored = await redis.hgetall(database_key(name))
    if not stored:
        raise HTTPException(404)
    return LastObservation(name=name, **stored)
