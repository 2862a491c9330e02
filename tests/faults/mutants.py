"""The table of mutants: ways to break the product, and the tests and rows that must notice. mutating.py runs it.

Keep each beside its neighbours of the same file, and name tests that look from further away than the broken line.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """One edit: `before` stands exactly once in the function (the whole file where there is none)."""

    name: str
    file: str
    function: str  # "name" or "Class.name"; in Lua the name of a local function
    before: str
    after: str
    killers: tuple[str, ...]  # each of these must fail; pytest's own names for them


_SCRIPTS = "monitor/live/scripts"
_MONITOR = "monitor"
_LIVE, _CORE, _WORKERS, _FAULTS = "tests/live", "tests/core", "tests/workers", "tests/faults"
_REGISTRY, _FEELER = "tests/registry", "tests/feeler"

MUTANTS: tuple[Mutant, ...] = (
    # --- record: who may write ------------------------------------------------------------------------------------
    Mutant(
        "record-fence",
        f"{_SCRIPTS}/record.lua",
        "record",
        "if hash[1] ~= worker or hash[2] ~= epoch then return 'fenced' end",
        "",
        (f"{_FAULTS}/test_processes.py::test_worker_killed", f"{_FAULTS}/test_processes.py::test_late_writes"),
    ),
    Mutant(
        "record-batch",
        f"{_SCRIPTS}/record.lua",
        "record",
        "(tonumber(last) or 0) >= batch",
        "false",
        (f"{_LIVE}/test_record.py::test_a_batch_that_arrives_after_a_later_one_changes_nothing",),
    ),
    Mutant(
        "record-generation",
        f"{_SCRIPTS}/record.lua",
        "",
        "open_generation(KEYS[1]) == ARGV[1]",
        "true",
        (f"{_LIVE}/test_record.py::test_a_write_captured_before_a_flush_is_rejected_after_it",),
    ),
    # --- rules: what proves a state ------------------------------------------------------------------------------
    Mutant(
        "never-unavailable",
        f"{_MONITOR}/core/verdict.py",
        "Subject.suffices",
        "return patient and",
        "return False and",
        (f"{_FAULTS}/test_nemesis.py::test_random_faults",),
    ),
    Mutant(
        "confirm-absent-never",
        f"{_MONITOR}/core/verdict.py",
        "confirm_absent",
        "words if agreed else ()",
        "()",
        (f"{_FAULTS}/test_targets.py::test_killed[kill_all]",),
    ),
    Mutant(
        "confirm-alone",
        f"{_MONITOR}/core/verdict.py",
        "confirm_absent",
        "others and all_absent",
        "all_absent",
        (f"{_CORE}/test_machine.py::test_only_alone_reaches_unavailable_on_one_workers_word",),
    ),
    # --- logins: many databases of one address ---------------------------------------------------------------------
    Mutant(
        "turns-share-nothing",
        f"{_MONITOR}/feeler/turns.py",
        "Place.learn",
        "if found.cause in SHARED:",
        "if False:",
        (f"{_FEELER}/test_turns.py::test_one_connect_that_times_out_speaks_for_all_who_wait",),
    ),
    Mutant(
        "turns-share-twice",
        f"{_MONITOR}/feeler/turns.py",
        "Place.turn",
        "if self._found and self._found.sent_at >= since:",
        "if self._found:",
        (f"{_FEELER}/test_turns.py::test_a_refusal_is_shared_within_its_deadline_and_told_to_nobody_twice",),
    ),
    Mutant(
        "turns-share-locked-out",
        f"{_MONITOR}/feeler/turns.py",
        "Place.learn",
        "if found.cause in SHARED:",
        "if True:",
        (f"{_FEELER}/test_turns.py::test_what_is_said_to_one_database_is_not_told_of_another",),
    ),
    Mutant(
        "turns-share-after-an-answer",
        f"{_MONITOR}/feeler/turns.py",
        "Place.reached",
        "self._found = None",
        "pass",
        (f"{_FEELER}/test_turns.py::test_a_host_that_takes_connections_again_is_not_talked_down",),
    ),
    Mutant(
        "turns-in-the-deadline",
        f"{_MONITOR}/feeler/session.py",
        "Session._enter",
        "attempt.timeout = timeout if",
        "attempt.timeout = None if",
        (
            f"{_FEELER}/test_turns.py::test_a_hundred_databases_of_a_mute_server_all_get_their_evidence",
            f"{_FAULTS}/test_targets.py::test_many_at_one_address[mute]",
        ),
    ),
)
