"""What one database is asked over a session, and the readings that its answers become.

For this package alone. It finds out on its way whether a pooler is between.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from psycopg.pq.abc import PGresult

from monitor.core.cause import cause_of_sqlstate
from monitor.core.observation import Reading, ReadingStatus
from monitor.feeler import evidence, gauges, pooler, questions
from monitor.feeler.answers import Answer, aborted, error_text, only_row, sqlstate
from monitor.feeler.causes import Failed
from monitor.feeler.evidence import Outcome
from monitor.feeler.gauges import Query, Readings, Values
from monitor.feeler.pooler import Pooling
from monitor.feeler.wire import Unit, Wire

# Shares of the deadline: the server gives a statement up before we give the server up ...
STATEMENT_SHARE = 0.75
MARGIN_SHARE = 0.1  # ... and a slow one starts only when it can end in time, with so much to spare


@dataclass(frozen=True, slots=True)
class SlowReadings:
    """What came of the slow gauges."""

    readings: Readings = ()
    seconds: float = 0.0  # that they took
    complete: bool = False  # there was time for all of them
    lost: bool = False  # the session ended meanwhile


class Reader:
    """The questions to one database; `clock` gives fleet seconds, `deadline` is in seconds."""

    def __init__(self, deadline: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._deadline = deadline
        self._statement_seconds = deadline * STATEMENT_SHARE
        self._counters: gauges.Counters | None = None
        self._next_slow = 0
        self.pooling = Pooling.NONE

    async def set_up(self, wire: Wire) -> None:
        """Pin the session's settings, in one round trip, unless a pooler shares it."""
        if self.pooling is not Pooling.CERTAIN:
            if pooler.is_made_up(wire.backend_pid):
                self.pooling = Pooling.REPORTED  # known even if it keeps us waiting from here on
            question = questions.set_up(self._statement_seconds, wire.backend_pid)
            (result,) = await wire.ask([question])
            code = sqlstate(result)
            if code:
                detail = error_text(result)
                raise Failed(cause_of_sqlstate(code), detail, sqlstate=code)
            says_yes = result.ntuples == 1 and result.get_value(0, 0) == b"t"
            self.pooling = self.pooling.reported(says_yes)
        wire.pooled = self.pooling.present
        if not wire.pooled:
            wire.pipeline(True)

    async def ask(self, wire: Wire) -> Outcome:
        """Ask the fast queries, and say what the answers prove."""
        queries = gauges.queries(wire.server_version, slow=False)
        together = not (wire.one_by_one or wire.pooled)
        units = [self._unit(wire, query) for query in queries]
        results = await wire.ask(units, together=together)
        answers = _answers(queries, results)
        if not wire.pooled and _has_lost_statements(answers):
            self.pooling, wire.pooled = Pooling.CERTAIN, True
            wire.pipeline(False)
            return await self.ask(wire)
        if aborted(results):
            wire.one_by_one = True
            return await self.ask(wire)
        for answer in answers:
            if not answer.code:
                wire.prepared.add(answer.query.name)
        return evidence.of_answers(answers, wire.server_version)

    def _unit(self, wire: Wire, query: Query) -> Unit:
        if wire.pooled:
            return questions.run_through_pooler(query, self._statement_seconds)
        return questions.run(query, prepared=query.name in wire.prepared)

    def readings(self, outcome: Outcome) -> Readings:
        """Return what the fast queries read."""
        if not outcome.server_version:
            return ()  # nobody was asked
        now = self._clock()
        found: list[Reading] = []
        for answer in outcome.answers:
            found.extend(self._read(answer, now))
        found.extend(gauges.unsupported(outcome.server_version, now, slow=False))
        return tuple(found)

    def has_room(self, outcome: Outcome) -> bool:
        """Say whether the server is known to have a slot that is not reserved."""
        for answer in outcome.answers:
            if "connections" in answer.query.families:
                return gauges.has_room(self._read(answer, self._clock()))
        return False

    def _read(self, answer: Answer, now: float) -> Readings:
        query = answer.query
        if answer.code:
            status = gauges.status_of_sqlstate(answer.code)
            return gauges.failed(query, now, status, answer.code)
        try:
            row = only_row(answer.result)
            rates: Values = {}
            if "database" in query.families:
                rates = self._rates(row)
            return gauges.readings(query, row, now, rates)
        except ValueError:  # the server lies about its types
            return gauges.failed(query, now, ReadingStatus.ERROR)

    def _rates(self, row: gauges.Row) -> Values:
        before = self._counters
        self._counters = gauges.counters(row, time.monotonic())
        return gauges.rates(before, self._counters)

    async def ask_slow(self, wire: Wire, until: float) -> SlowReadings:
        """Ask the slow gauges one by one while there is time, from where the last feel ended."""
        began = time.monotonic()
        complete, lost = True, False
        found: list[Reading] = []
        tier = gauges.queries(wire.server_version, slow=True)
        first = self._next_slow
        for query in (*tier[first:], *tier[:first]):
            if wire.closed or not self._has_time(until):
                complete = False
                break
            self._next_slow = (tier.index(query) + 1) % len(tier)
            try:
                found.extend(await self._ask_slow(wire, query, until))
            except Failed as failed:
                lost = failed.lost
                found.extend(gauges.failed(query, self._clock(), ReadingStatus.ERROR))
        found.extend(gauges.unsupported(wire.server_version, self._clock(), slow=True))
        return SlowReadings(tuple(found), time.monotonic() - began, complete, lost)

    def _has_time(self, until: float) -> bool:
        needed = self._deadline * (STATEMENT_SHARE + MARGIN_SHARE)
        return time.monotonic() + needed <= until

    async def _ask_slow(self, wire: Wire, query: Query, until: float) -> Readings:
        try:
            async with asyncio.timeout_at(until):
                (result,) = await wire.ask([self._unit(wire, query)])
        except TimeoutError:
            return gauges.failed(query, self._clock(), ReadingStatus.TIMED_OUT)
        return self._read(Answer(query, sqlstate(result), result), self._clock())


def _answers(queries: Sequence[Query], results: Sequence[PGresult]) -> list[Answer]:
    pairs = zip(queries, results, strict=True)
    return [Answer(query, sqlstate(result), result) for query, result in pairs]


def _has_lost_statements(answers: Sequence[Answer]) -> bool:
    return any(answer.code in pooler.STATEMENT_LOST for answer in answers)
