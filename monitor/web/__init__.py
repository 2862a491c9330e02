"""The HTTP door: one module per resource. Imported by cli.py alone; never imports workers/.

`last_observation` and what it uses reach Redis only: no registry, no feeler, so it answers while
Postgres is away.
"""
