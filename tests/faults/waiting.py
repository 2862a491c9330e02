"""Faults that have no row here, and why. Shown at the end of docs/faults.md."""

WAITING = {
    "one worker loses every target but not the stores": "blindness comes with second opinions",
    "more than a fifth of a fleet about to become unavailable at once": (
        "the breaker comes with second opinions"
    ),
    "a database that flaps, 3 s up and 3 s down": (
        "flapping comes with second opinions; states and history hold today"
    ),
    "a gauge that raises or spins": (
        "gauges are SQL files; a statement that fails or stalls has its row"
    ),
    "Sentinel fails over": (
        "Sentinel is not supported yet; a failover behind one address has its row"
    ),
    "a webhook endpoint down, slow or redirecting": "there are no notifications yet",
    "thousands of event-stream clients that never read": "there is no event stream yet",
    "a pub/sub message lost": "nothing of feeler listens to pub/sub",
    "the RQ parent killed, its horse alive": (
        "workers never fork a horse; the death of `feeler up` has its row"
    ),
    "addresses of local files, sockets and metadata services": (
        "refused when they are given: tests/core, tests/web"
    ),
    "the clock of the metadata Postgres set back": (
        "no machine lets one process have a clock of its own for that"
    ),
}
