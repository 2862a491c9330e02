"""The process that watches: feel, tick, record. Nothing of the supervisor's is imported here."""
