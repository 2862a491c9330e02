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
_WORKERS_OF = "workers"
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
        "words if others and subject.absent_for_long(words) else ()",
        "()",
        (f"{_FAULTS}/test_targets.py::test_killed[kill_all]",),
    ),
    Mutant(
        "confirm-alone",
        f"{_MONITOR}/core/verdict.py",
        "confirm_absent",
        "words if others and subject",
        "words if subject",
        (f"{_CORE}/test_machine.py::test_only_alone_reaches_unavailable_on_one_workers_word",),
    ),
    Mutant(
        "confirm-absent-on-silence",
        f"{_MONITOR}/core/verdict.py",
        "Subject.absent_for_long",
        "since = self.context.policy, self.doubt.absent_since",
        "since = self.context.policy, self.doubt.sent_at",
        (f"{_CORE}/test_machine_stories.py::test_the_quick_rule_counts_nothing_that_was_silent",),
    ),
    Mutant(
        "server-error-names-nothing",
        f"{_MONITOR}/core/verdict.py",
        "answered",
        "subject.status.errors + 1 >= ERRORS_MOST",
        "False",
        (f"{_CORE}/test_machine.py::test_a_server_that_errs_and_falls_silent_in_turn_is_refusing_in_the_end[hung]",),
    ),
    Mutant(
        "old-address-testifies",
        f"{_MONITOR}/core/verdict.py",
        "_of_this_address",
        "unheard(doubt) if doubt.revision else doubt",
        "doubt",
        (f"{_CORE}/test_machine_stories.py::test_what_was_found_at_an_old_address_confirms_nothing",),
    ),
    # --- doubts: who looks next --------------------------------------------------------------------------------------
    Mutant(
        "doubt-moves-three-times",
        f"{_WORKERS_OF}/doubts.py",
        "Doubts._may_move",
        "len(used) < MOVES_MOST or now - asked.since >= patience(self._policy(place.database), asked.cause)",
        "len(recent) < MOVES_MOST",
        (f"{_FAULTS}/test_targets.py::test_killed_again_and_again[2]",),
    ),
    Mutant(
        "refusal-outlives-its-doubt",
        f"{_WORKERS_OF}/doubts.py",
        "Doubts._counts",
        "return asked is not None and asked.doubt == doubt",
        "return True",
        (f"{_WORKERS}/test_leader.py::test_a_blip_that_is_over_moves_nothing",),
    ),
    Mutant(
        "doubt-future-moves",
        f"{_WORKERS_OF}/doubts.py",
        "Doubts._may_move",
        "if 0 <= now - moment < MOVES_WITHIN",
        "if now - moment < MOVES_WITHIN",
        (f"{_FAULTS}/test_clocks.py::test_redis_clock_set_back_in_an_outage[2]",),
    ),
    Mutant(
        "clock-redates-nothing",
        f"{_MONITOR}/core/machine.py",
        "tick",
        "status = _redated(status, observation.at)",
        "pass",
        (f"{_FAULTS}/test_clocks.py::test_redis_clock_set_back_in_an_outage[1]",),
    ),
    Mutant(
        "clock-cry-of-the-future",
        f"{_SCRIPTS}/record.lua",
        "later",
        " or (moment ~= known and ahead > CLOCK_STEP)",
        "",
        (f"{_FAULTS}/test_clocks.py::test_redis_clock_set_back_in_an_outage[2]",),
    ),
    # --- custody: workers that can only say void ---------------------------------------------------------------------
    Mutant(
        "void-is-never-said",
        f"{_MONITOR}/core/custody.py",
        "hear",
        "enough = rounds >= VOIDS_MOST or round(seen.at - since, 3) >= VOIDS_SECONDS",
        "enough = False",
        (f"{_FAULTS}/test_processes.py::test_blind_observer",),
    ),
    Mutant(
        "void-worker-stays-a-peer",
        f"{_MONITOR}/core/custody.py",
        "Faults.able",
        "return not self.causes(now) or now - self._learned_at < LATELY",
        "return True",
        (f"{_FAULTS}/test_processes.py::test_blind_observer",),
    ),
    Mutant(
        "void-all-move-about",
        f"{_MONITOR}/core/assignment.py",
        "_last_resort",
        "if owner and all(refused[worker][0] for worker in draft.zones):",
        "if False:",
        (f"{_CORE}/test_assignment.py::test_where_all_can_only_say_void_nothing_moves",),
    ),
    # --- policies ----------------------------------------------------------------------------------------------------
    Mutant(
        "policy-alone-too-soon",
        f"{_MONITOR}/core/policy.py",
        "Policy.__post_init__",
        "if self.alone_seconds <= LED_FOR:",
        "if False:",
        (f"{_REGISTRY}/test_fleet.py::test_a_policy_nobody_can_follow[bad4]",),
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
        "names-are-kept-for-half-a-minute",
        f"{_MONITOR}/feeler/names.py",
        "",
        "ANEW = 1.0",
        "ANEW = 30.0",
        (f"{_FAULTS}/test_names.py::test_a_name_that_leaves_a_dead_host",),
    ),
    Mutant(
        "names-are-not-watched",
        f"{_MONITOR}/feeler/session.py",
        "Session._has_moved",
        "return not names.leads_to(host, kept.hostaddr)",
        "return False",
        (
            f"{_FEELER}/test_moving_names.py::test_a_kept_session_follows_its_name",
            f"{_FAULTS}/test_names.py::test_a_name_that_leaves_a_living_host",
        ),
    ),
    Mutant(
        "names-excuse-nothing",
        f"{_MONITOR}/feeler/session.py",
        "Session._excuse",
        "self._left |= tried",
        "return",
        (f"{_FEELER}/test_moving_names.py::test_a_negative_about_an_address_the_name_has_left_is_void",),
    ),
    Mutant(
        "names-excuse-for-ever",
        f"{_MONITOR}/feeler/session.py",
        "Session._excuse",
        "tried <= self._left or any(",
        "any(",
        (
            f"{_FEELER}/test_moving_names.py::test_a_name_that_leads_elsewhere_with_every_answer_excuses_each_address_once",
        ),
    ),
    Mutant(
        "doubt-of-a-left-address-counts",
        f"{_MONITOR}/core/verdict.py",
        "_where_it_leads",
        "unheard(doubt) if doubt.tried else doubt",
        "doubt",
        (f"{_CORE}/test_machine_stories.py::test_what_was_found_where_the_name_led_before_does_not_count",),
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
    # --- whose a Redis is, who leads -----------------------------------------------------------------------------
    Mutant(
        "foreign-step",
        f"{_SCRIPTS}/prelude.lua",
        "objection",
        "if holder and holder ~= registry then return 'foreign' end",
        "",
        (f"{_LIVE}/test_generation.py::test_a_leader_of_another_registry_is_refused_by_every_step",),
    ),
    Mutant(
        "foreign-lead",
        f"{_MONITOR}/registry/leadership.py",
        "acquire",
        'set(signed) - {ours, ""}',
        "set[str]()",
        (f"{_WORKERS}/test_supervisor.py::test_the_supervisor_of_another_registry_leads_nowhere_else",),
    ),
    Mutant(
        "foreign-journal",
        "workers/historian.py",
        "Historian._check",
        "raise ForeignRedis(self._ours, holder)",
        "pass",
        (f"{_WORKERS}/test_supervisor.py::test_the_supervisor_of_another_registry_leads_nowhere_else",),
    ),
    Mutant(
        "registry-restored",
        f"{_SCRIPTS}/restore.lua",
        "merge_registry",
        "if more > 0 or",
        "if",
        (f"{_WORKERS}/test_supervisor.py::test_a_redis_that_forgot_its_registry_is_left_to_those_who_remember",),
    ),
    Mutant(
        "take-over-obeyed",
        "workers/recorder.py",
        "Recorder._sign",
        "if told > known or",
        "if",
        (f"{_WORKERS}/test_supervisor.py::test_a_take_over_by_a_persons_word_is_obeyed",),
    ),
    Mutant(
        "stuck-leader",
        "workers/supervisor.py",
        "Supervisor._hold",
        "leader.unswept >= self._settings.lease",
        "False",
        (f"{_WORKERS}/test_supervisor.py::test_a_leader_that_completes_no_sweep_makes_way_whatever_the_reason",),
    ),
    Mutant(
        "unproven-for-ever",
        "workers/unproven.py",
        "Unproven.was_given_up",
        "(database, owner) in self._refusals or owner in self._barred",
        "False",
        (f"{_WORKERS}/test_leader.py::test_one_database_unproven_moves_alone",),
    ),
    Mutant(
        "idle-worker-never-barred",
        "workers/unproven.py",
        "Unproven.bar",
        "now + BARRED",
        "now",
        (f"{_WORKERS}/test_leader.py::test_what_its_owner_never_proves_is_moved_and_who_proves_nothing_gets_nothing",),
    ),
    Mutant(
        "lease-in-the-future",
        f"{_MONITOR}/registry/leadership.py",
        "_runs",
        "Leadership.expires_at <= _in(seconds)",
        "Leadership.expires_at > _now()",
        (f"{_REGISTRY}/test_leadership.py::test_a_lease_dated_in_the_future_is_nobodys",),
    ),
    Mutant(
        "pool-demoted",
        f"{_MONITOR}/registry/store.py",
        "_leave_demoted",
        "context.is_disconnect = True",
        "pass",
        (f"{_REGISTRY}/test_store.py::test_connections_to_a_demoted_server_are_not_used_again",),
    ),
    Mutant(
        "pool-standby",
        f"{_MONITOR}/registry/store.py",
        "_ping",
        "if demoted:",
        "if False:",
        (f"{_REGISTRY}/test_store.py::test_kept_connections_to_a_standby_are_replaced",),
    ),
)
