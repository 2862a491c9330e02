"""feeler: the last observation and a trustworthy state for every Postgres database you own.

The way of the data:  registry --databases--> supervisor --plan--> assignments --> worker's patrol
  patrol: feel (feeler/) -> Observation -> tick (core/machine.py) -> Status, events -> record
  (live/), one fenced step live/ holds what is true now, registry/ what must survive; the journal
  forks to supervisor and historian. GET /last_observation reads live/ only.

core/ is pure; feeler/ owns psycopg, live/ owns redis, registry/ owns sqlalchemy, core/machine.py
owns transitions.
"""
