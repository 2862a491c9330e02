"""The table of mutants: ways to break the product, and the tests and rows that must notice.
mutating.py runs it.

Keep each beside its neighbours of the same file, and name tests that look from further away than
the broken line.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """One edit: `before` stands exactly once in the function, or in the file if none is named."""

    name: str
    file: str
    function: str  # "name" or "Class.name"; in Lua the name of a local function
    before: str
    after: str
    killers: tuple[str, ...]  # each of these must fail; pytest's own names for them


_LIVE, _CORE, _WORKERS, _FAULTS = "tests/live", "tests/core", "tests/workers", "tests/faults"
_REGISTRY, _FEELER = "tests/registry", "tests/feeler"

MUTANTS: tuple[Mutant, ...] = (
    # --- record: who may write, and what ----------------------------------------------------------
    Mutant(
        "record-fence",
        "monitor/live/scripts/record.lua",
        "record",
        "if owner ~= worker or known_epoch ~= epoch then return 'fenced' end",
        "",
        (
            f"{_FAULTS}/test_processes.py::test_worker_killed",
            f"{_FAULTS}/test_processes.py::test_late_writes",
        ),
    ),
    Mutant(
        "record-fence-of-epochs",
        "monitor/live/scripts/record.lua",
        "record",
        "owner ~= worker or known_epoch ~= epoch",
        "owner ~= worker",
        (f"{_LIVE}/test_protocol.py::test_random_histories",),
    ),
    Mutant(
        "record-fence-of-owners",
        "monitor/live/scripts/record.lua",
        "record",
        "owner ~= worker or known_epoch ~= epoch",
        "known_epoch ~= epoch",
        (f"{_LIVE}/test_protocol.py::test_random_histories",),
    ),
    Mutant(
        "record-batch",
        "monitor/live/scripts/record.lua",
        "record",
        "(tonumber(last_batch) or 0) >= batch",
        "false",
        (f"{_LIVE}/test_record.py::test_a_batch_that_arrives_after_a_later_one_changes_nothing",),
    ),
    Mutant(
        "record-generation",
        "monitor/live/scripts/record.lua",
        "",
        "open_generation(KEYS[1]) == ARGV[1]",
        "true",
        (f"{_LIVE}/test_record.py::test_a_write_captured_before_a_flush_is_rejected_after_it",),
    ),
    Mutant(
        "record-builds-on",
        "monitor/live/scripts/record.lua",
        "fresh",
        "return nil",
        "known = id",
        (
            f"{_LIVE}/test_record.py::"
            "test_a_pending_event_that_another_owner_overtook_is_not_taken_for_one_accepted_before",
        ),
    ),
    Mutant(
        "record-ahead",
        "monitor/live/scripts/record.lua",
        "record",
        "if newer(known, identity) then return 'ahead' end",
        "",
        (f"{_LIVE}/test_record.py::test_ahead_when_the_hash_holds_a_newer_identity",),
    ),
    Mutant(
        "record-resent",
        "monitor/live/scripts/record.lua",
        "fresh",
        "elseif newer(id, known) then",
        "else",
        (
            f"{_LIVE}/test_record.py::"
            "test_an_event_resent_because_its_reply_was_lost_is_accepted_once",
        ),
    ),
    Mutant(
        "record-one-content",
        "monitor/live/scripts/record.lua",
        "record",
        "and known_state ~= state",
        "and false",
        (f"{_LIVE}/test_record.py::test_conflict_when_one_identity_has_two_states",),
    ),
    # --- the leader's steps: terms, epochs, registries --------------------------------------------
    Mutant(
        "term-seen",
        "monitor/live/scripts/prelude.lua",
        "objection",
        "if tonumber(redis.call('GET', term_key) or 0) > tonumber(term) then return 'stale' end",
        "",
        (
            f"{_LIVE}/test_targets.py::test_a_deposed_leader_brings_no_retired_address_back",
            f"{_LIVE}/test_generation.py::test_nobody_opens_against_a_higher_term",
        ),
    ),
    Mutant(
        "assign-epoch",
        "monitor/live/scripts/assign.lua",
        "refusal",
        "if not newer(epoch, known_epoch) then return 'stale' end",
        "",
        (f"{_LIVE}/test_assignments.py::test_stale_by_epoch",),
    ),
    Mutant(
        "assign-unproven",
        "monitor/live/scripts/assign.lua",
        "refusal",
        "if planned and former and not proven then return 'unproven' end",
        "",
        (f"{_WORKERS}/test_leader.py::test_a_leaving_workers_databases_move_after_its_first_beat",),
    ),
    Mutant(
        "assign-closed",
        "monitor/live/scripts/assign.lua",
        "refusal",
        "if planned and not open_generation(KEYS[2]) then return 'closed' end",
        "",
        (f"{_LIVE}/test_assignments.py::test_a_planned_move_waits_for_an_open_generation",),
    ),
    Mutant(
        "assign-settled",
        "monitor/live/scripts/assign.lua",
        "refusal",
        "if doubt ~= '' and string.match(open_doubt or '', '^%S+') ~= doubt "
        "then return 'settled' end",
        "",
        (f"{_LIVE}/test_assignments.py::test_a_doubt_that_is_settled_moves_nothing",),
    ),
    Mutant(
        "epochs-as-text",
        "monitor/live/scripts/prelude.lua",
        "newer",
        "if x ~= y then return x > y end",
        "if part ~= tostring(y) then return part > tostring(y) end",
        (
            f"{_LIVE}/test_record.py::"
            "test_epochs_are_compared_as_two_integers_not_as_text_or_doubles",
        ),
    ),
    Mutant(
        "deposed-too-late",
        "workers/supervisor/leader.py",
        "Leader._check_lead",
        "if standing.term > self.lease.term or",
        "if",
        (f"{_WORKERS}/test_leader.py::test_an_older_term_steps_down",),
    ),
    # --- leases -----------------------------------------------------------------------------------
    Mutant(
        "lease-of-others",
        "monitor/registry/leadership.py",
        "acquire",
        "not_(_runs(seconds))",
        "Leadership.owner != ''",
        (f"{_REGISTRY}/test_leadership.py::test_of_many_racing_for_an_expired_lease_one_wins",),
    ),
    Mutant(
        "lease-term-of-redis",
        "monitor/registry/leadership.py",
        "acquire",
        "func.greatest(Leadership.term, highest) + 1",
        "Leadership.term + 1",
        (f"{_FAULTS}/test_metadata.py::test_restored_from_an_older_copy",),
    ),
    Mutant(
        "lease-renewed-by-anybody",
        "monitor/registry/leadership.py",
        "_held",
        "Leadership.owner == lease.owner,\n        Leadership.term == lease.term,",
        "",
        (f"{_REGISTRY}/test_leadership.py::test_terms_only_rise_and_one_lease_is_valid",),
    ),
    # --- instances of Redis -----------------------------------------------------------------------
    Mutant(
        "any-instance",
        "monitor/live/scripts/prelude.lua",
        "is_this_instance",
        "return string.find(info, 'master_replid:' .. instance .. '\\r', 1, true) ~= nil",
        "return true",
        (f"{_LIVE}/test_connections.py::test_a_promoted_replica_holds_everything_and_is_closed",),
    ),
    Mutant(
        "open-without-reports",
        "monitor/live/scripts/open.lua",
        "",
        "return 'forgotten'",
        "break",
        (f"{_LIVE}/test_generation.py::test_a_flush_between_partitions_leaves_the_rest_closed",),
    ),
    Mutant(
        "late-memory-counts",
        "monitor/live/scripts/restore.lua",
        "",
        "if not late then",
        "if true then",
        (f"{_LIVE}/test_generation.py::test_a_memory_that_comes_late_takes_nothing_back",),
    ),
    Mutant(
        "older-memory-wins",
        "monitor/live/scripts/restore.lua",
        "merge_status",
        "if not better then return end",
        "",
        (f"{_LIVE}/test_generation.py::test_restores_end_alike_in_any_order_and_repetition",),
    ),
    Mutant(
        "replay-anywhere",
        "monitor/live/scripts/replay.lua",
        "",
        "if open_generation(KEYS[1]) ~= ARGV[1] then return 0 end",
        "",
        (f"{_LIVE}/test_durability.py::test_nothing_is_replayed_into_another_generation",),
    ),
    Mutant(
        "hash-outweighs-accepted",
        "monitor/core/holding.py",
        "Holding.learn",
        "stored = later(self.accepted, stored)",
        "pass",
        (
            f"{_LIVE}/test_protocol.py::test_what_comes_late_or_never[old_read]",
            f"{_WORKERS}/test_recorder.py::"
            "test_a_hash_that_is_older_than_what_was_accepted_takes_nothing_back",
        ),
    ),
    # --- retention --------------------------------------------------------------------------------
    Mutant(
        "retain-nothing",
        "monitor/core/custody.py",
        "Custody._retain",
        "self._retained[key] = transition",
        "pass",
        (f"{_FAULTS}/test_redis.py::test_one_worker_left_with_the_old_master",),
    ),
    Mutant(
        "retained-not-replayed",
        "workers/worker/recorder.py",
        "Recorder._enter",
        "list(self.custody.retained.values())",
        "[]",
        (f"{_FAULTS}/test_redis.py::test_one_worker_left_with_the_old_master",),
    ),
    Mutant(
        "report-of-before-will-do",
        "workers/worker/recorder.py",
        "Recorder._follow",
        "self.custody.restored and await",
        "await",
        (
            f"{_WORKERS}/test_recorder.py::"
            "test_a_late_report_of_an_earlier_closing_stands_for_no_restore",
        ),
    ),
    Mutant(
        "restored-once-for-ever",
        "monitor/core/custody.py",
        "Custody.enter",
        "self.restored = False",
        "pass",
        (
            f"{_WORKERS}/test_recorder.py::"
            "test_a_late_report_of_an_earlier_closing_stands_for_no_restore",
        ),
    ),
    Mutant(
        "trim-unread",
        "monitor/live/scripts/trim.lua",
        "",
        "if not groups[ARGV[i]] then floor = nil end",
        "",
        (f"{_LIVE}/test_journal.py::test_nothing_is_trimmed_before_the_durable_groups_exist",),
    ),
    Mutant(
        "trim-newest",
        "monitor/live/scripts/trim.lua",
        "",
        "if not floor or newer(floor, first) then",
        "if not floor or newer(first, floor) then",
        (f"{_LIVE}/test_journal.py::test_only_what_every_group_acknowledged_is_trimmed",),
    ),
    Mutant(
        "letters-thrown-away",
        "monitor/live/letters.py",
        "bury",
        "pipe.xadd(dead, letter, maxlen=LIMIT, approximate=False)",
        "",
        (
            f"{_WORKERS}/test_newer_version.py::"
            "test_a_historian_writes_the_others_and_the_letter_once_it_can",
            f"{_FAULTS}/test_versions.py::test_written_by_a_newer_version",
        ),
    ),
    Mutant(
        "historian-doubles",
        "monitor/registry/transitions.py",
        "_sort_out",
        "if key not in seen:",
        "if True:",
        (f"{_FAULTS}/test_metadata.py::test_historian_killed_between_commit_and_ack",),
    ),
    # --- presence ---------------------------------------------------------------------------------
    Mutant(
        "thawed-unnoticed",
        "monitor/core/timing.py",
        "",
        "FREEZE = 3.0",
        "FREEZE = 3000.0",
        (
            f"{_CORE}/test_timing.py::test_all_relations_hold",
            f"{_FAULTS}/test_processes.py::test_worker_frozen",
        ),
    ),
    Mutant(
        "presence-lasts",
        "monitor/core/timing.py",
        "",
        "PRESENCE_TTL = 7.0",
        "PRESENCE_TTL = 70.0",
        (
            f"{_CORE}/test_timing.py::test_all_relations_hold",
            f"{_FAULTS}/test_processes.py::test_worker_killed",
        ),
    ),
    Mutant(
        "thawed-and-sure",
        "workers/worker/recorder.py",
        "Recorder._fence",
        "self.custody.stop()",
        "pass",
        (
            f"{_WORKERS}/test_recorder.py::"
            "test_a_process_that_was_frozen_says_nothing_before_it_has_looked",
        ),
    ),
    Mutant(
        "presence-by-redis-alone",
        "monitor/live/presence.py",
        "Alive.among",
        "if now - since < PRESENCE_TTL:",
        "if True:",
        (
            f"{_WORKERS}/test_leader.py::test_a_presence_that_outlives_its_worker_keeps_nothing",
            f"{_WORKERS}/test_worker.py::"
            "test_a_presence_that_outlives_its_worker_is_nobodys_company",
            f"{_FAULTS}/test_clocks.py::test_presence_outlives_its_worker",
        ),
    ),
    Mutant(
        "settle-never",
        "monitor/core/timing.py",
        "",
        "ABSENCE_GRACE = 6.0",
        "ABSENCE_GRACE = 0.0",
        (
            f"{_CORE}/test_timing.py::test_all_relations_hold",
            f"{_WORKERS}/test_leader.py::"
            "test_an_absence_counts_only_once_redis_has_answered_for_a_while",
        ),
    ),
    # --- rules: what proves a state ---------------------------------------------------------------
    Mutant(
        "never-unavailable",
        "monitor/core/machine.py",
        "_wire",
        "return fits and",
        "return fits and target is not State.UNAVAILABLE and",
        (f"{_FAULTS}/test_nemesis.py::test_random_faults",),
    ),
    Mutant(
        "confirm-absent-never",
        "monitor/core/verdict.py",
        "confirm_absent",
        "return findings",
        "return ()",
        (f"{_FAULTS}/test_targets.py::test_killed[kill_all]",),
    ),
    Mutant(
        "confirm-absent-alone",
        "monitor/core/verdict.py",
        "confirm_absent",
        "not others or ",
        "",
        (f"{_CORE}/test_machine.py::test_only_a_single_observer_reaches_unavailable_by_itself",),
    ),
    Mutant(
        "confirm-absent-at-once",
        "monitor/core/verdict.py",
        "Subject.absent_for_long",
        "elapsed(since, self.observation.at) < policy.absent_seconds",
        "False",
        (
            f"{_CORE}/test_machine_stories.py::"
            "test_a_killed_database_is_unavailable_when_a_second_worker_finds_it_gone",
        ),
    ),
    Mutant(
        "confirm-silent-never",
        "monitor/core/verdict.py",
        "confirm_silent",
        "return findings",
        "return ()",
        (f"{_FAULTS}/test_targets.py::test_frozen",),
    ),
    Mutant(
        "confirm-silent-at-once",
        "monitor/core/verdict.py",
        "Subject.are_enough",
        "waited < seconds or ",
        "",
        (
            f"{_CORE}/test_machine_stories.py::"
            "test_a_frozen_server_takes_three_rounds_and_ten_seconds",
        ),
    ),
    Mutant(
        "absence-confirms-silence",
        "monitor/core/verdict.py",
        "Subject.confirming",
        "self.evidence is Evidence.SILENT and is_absent(finding)",
        "False",
        (f"{_FAULTS}/test_network.py::test_killed_and_the_next_worker_is_cut_off[back-3]",),
    ),
    Mutant(
        "no-third-worker-asked",
        "monitor/core/machine.py",
        "_must_ask_again",
        "ASK_A_THIRD if is_young and subject.needs_a_third() else ASK_AGAIN",
        "ASK_AGAIN",
        (
            f"{_CORE}/test_machine_stories.py::"
            "test_a_silence_after_an_absence_asks_for_another_observer_at_once",
        ),
    ),
    Mutant(
        "third-worker-waits",
        "monitor/core/doubts.py",
        "Doubts._may_move",
        " and not asked.needs_a_third",
        "",
        (f"{_FAULTS}/test_network.py::test_killed_and_the_next_worker_is_cut_off[stays-3]",),
    ),
    Mutant(
        "single-observer-never",
        "monitor/core/verdict.py",
        "single_observer",
        "return findings",
        "return ()",
        (f"{_FAULTS}/test_targets.py::test_killed_with_one_worker",),
    ),
    Mutant(
        "single-observer-at-once",
        "monitor/core/verdict.py",
        "single_observer",
        "elapsed(context.alone_since, subject.observation.at) < policy.alone_seconds",
        "False",
        (f"{_FAULTS}/test_targets.py::test_killed_with_one_worker",),
    ),
    Mutant(
        "reached-by-another",
        "monitor/core/verdict.py",
        "Subject.absent_for_long",
        "if self.is_contradicted():",
        "if False:",
        (
            f"{_CORE}/test_machine_stories.py::"
            "test_whoever_reached_it_since_the_doubt_stands_against_all_others",
        ),
    ),
    Mutant(
        "answered-once",
        "monitor/core/verdict.py",
        "answered",
        "if not agreeing and not subject.status.alive:",
        "if False:",
        (f"{_CORE}/test_machine_stories.py::test_anything_between_two_answers_starts_over",),
    ),
    Mutant(
        "recovered-at-once",
        "monitor/core/verdict.py",
        "recovered",
        "not many or elapsed(since, at) < policy.recovery_seconds",
        "False",
        (f"{_CORE}/test_machine_stories.py::test_two_oks_two_seconds_apart_are_a_recovery",),
    ),
    Mutant(
        "outdated-counts",
        "monitor/core/verdict.py",
        "_is_outdated",
        "observation.sent_at < doubt.sent_at",
        "False",
        (f"{_CORE}/test_machine_stories.py::test_an_ok_sent_before_the_doubt_does_not_end_it",),
    ),
    Mutant(
        "old-findings-count",
        "monitor/core/verdict.py",
        "Subject.confirming",
        "if elapsed(finding.at, seen.at) <= grace:",
        "if True:",
        (
            f"{_CORE}/test_machine_stories.py::"
            "test_what_a_former_owner_found_counts_for_the_wait_of_the_rule_and_no_longer",
        ),
    ),
    Mutant(
        "confirm-absent-on-silence",
        "monitor/core/verdict.py",
        "Subject.absent_for_long",
        "since = self.doubt.absent_since",
        "since = self.doubt.sent_at",
        (f"{_CORE}/test_machine_stories.py::test_the_quick_rule_counts_nothing_that_was_silent",),
    ),
    Mutant(
        "server-error-names-nothing",
        "monitor/core/verdict.py",
        "answered",
        "subject.status.errors + 1 >= ERRORS_MOST",
        "False",
        (
            f"{_CORE}/test_machine.py::"
            "test_a_server_that_errs_and_falls_silent_in_turn_is_refusing_in_the_end[hung]",
        ),
    ),
    Mutant(
        "old-address-testifies",
        "monitor/core/verdict.py",
        "_of_this_address",
        "doubt = without_findings(doubt)",
        "pass",
        (
            f"{_CORE}/test_machine_stories.py::"
            "test_what_was_found_at_an_old_address_confirms_nothing",
        ),
    ),
    Mutant(
        "address-kept",
        "workers/worker/patrol.py",
        "Patrol._learn",
        "watch.revision != target.revision",
        "False",
        (
            f"{_WORKERS}/test_patrol.py::test_a_new_address_is_taken_up_while_all_is_well",
            f"{_FAULTS}/test_targets.py::test_address_changed_in_peace",
        ),
    ),
    Mutant(
        "foreign-cause-hinders",
        "monitor/core/verdict.py",
        "_newest_of_others",
        " if EVIDENCE[one.cause] is not Evidence.OUR_FAULT",
        "",
        (
            f"{_CORE}/test_machine_stories.py::"
            "test_what_a_newer_version_found_neither_proves_nor_hinders",
        ),
    ),
    # --- doubts: who looks next -------------------------------------------------------------------
    Mutant(
        "doubt-moves-three-times",
        "monitor/core/doubts.py",
        "Doubts._may_move",
        """if len(used) < MOVES_MOST:
            return True
        policy = self._policy(place.database)
        lasted = now - asked.since
        return lasted >= policy.seconds_required(asked.cause)""",
        "return len(recent) < MOVES_MOST",
        (f"{_FAULTS}/test_targets.py::test_killed_again_and_again[2]",),
    ),
    Mutant(
        "refusal-outlives-its-doubt",
        "monitor/core/doubts.py",
        "Doubts._stands",
        """if asked is None:
            return False
        return asked.doubt == answer.doubt""",
        "return True",
        (f"{_WORKERS}/test_leader.py::test_a_blip_that_is_over_moves_nothing",),
    ),
    Mutant(
        "doubt-future-moves",
        "monitor/core/doubts.py",
        "_is_recent",
        "return 0 <= now - at < MOVES_WITHIN",
        "return now - at < MOVES_WITHIN",
        (f"{_FAULTS}/test_clocks.py::test_redis_clock_set_back_in_an_outage[2]",),
    ),
    Mutant(
        "clock-redates-nothing",
        "monitor/core/machine.py",
        "tick",
        "status = _redated(status, observation.at)",
        "pass",
        (f"{_FAULTS}/test_clocks.py::test_redis_clock_set_back_in_an_outage[1]",),
    ),
    Mutant(
        "clock-request-of-the-future",
        "monitor/live/scripts/record.lua",
        "later",
        " or (moment ~= known and ahead > CLOCK_STEP)",
        "",
        (f"{_FAULTS}/test_clocks.py::test_redis_clock_set_back_in_an_outage[2]",),
    ),
    # --- custody: what comes late or never --------------------------------------------------------
    Mutant(
        "pending-not-carried-over",
        "monitor/core/holding.py",
        "Holding.learn",
        "self.pending if known and known[0].prev == stored.identity else ()",
        "()",
        (f"{_LIVE}/test_protocol.py::test_what_comes_late_or_never[pending_keeps_its_identity]",),
    ),
    Mutant(
        "late-reply-not-retained",
        "monitor/core/custody.py",
        "Custody._accept",
        "return self._retain(transitions(beat.events))",
        "return ()",
        (f"{_LIVE}/test_protocol.py::test_what_comes_late_or_never[late_reply]",),
    ),
    Mutant(
        "released-not-restored",
        "monitor/core/custody.py",
        "Custody.restorable",
        "self._released.items()",
        "{}.items()",
        (f"{_LIVE}/test_protocol.py::test_what_comes_late_or_never[released]",),
    ),
    Mutant(
        "found-not-replayed",
        "monitor/core/custody.py",
        "Custody._find",
        "self._found += found",
        "pass",
        (f"{_LIVE}/test_protocol.py::test_what_comes_late_or_never[found]",),
    ),
    Mutant(
        "found-meanwhile-is-forgotten",
        "monitor/core/custody.py",
        "Custody.replayed",
        "[one for one in self._found if one not in done]",
        "self._found[len(done) :]",
        (
            f"{_WORKERS}/test_recorder.py::"
            "test_what_is_found_while_others_are_replayed_twice_at_once_is_replayed_next",
        ),
    ),
    Mutant(
        "found-not-noticed",
        "monitor/core/holding.py",
        "Holding.learn",
        "if found and found[-1].identity == stored.identity:",
        "if False:",
        (f"{_LIVE}/test_protocol.py::test_what_comes_late_or_never[found]",),
    ),
    Mutant(
        "release-without-a-look",
        "monitor/core/custody.py",
        "Custody.release",
        "() if stored is None else holding.learn(holding.epoch, stored)",
        "()",
        (f"{_LIVE}/test_protocol.py::test_what_comes_late_or_never[found_at_the_release]",),
    ),
    Mutant(
        "all-forgotten-for-one-durable",
        "monitor/core/custody.py",
        "Custody.forget_durable",
        "self._retained.pop(key, None)",
        "self._retained.clear()",
        (f"{_LIVE}/test_protocol.py::test_what_comes_late_or_never[durable_each_by_itself]",),
    ),
    # --- workers that find only their own faults --------------------------------------------------
    Mutant(
        "faults-never-said",
        "monitor/core/own_faults.py",
        "count_fault",
        "enough = streak.rounds >= FAULTS_MOST or lasted >= FAULTS_FOR",
        "enough = False",
        (f"{_FAULTS}/test_processes.py::test_blind_observer",),
    ),
    Mutant(
        "blind-worker-stays-a-peer",
        "monitor/core/own_faults.py",
        "OwnFaults.can_watch",
        "return since_learned < LEARNED_LATELY",
        "return True",
        (f"{_FAULTS}/test_processes.py::test_blind_observer",),
    ),
    Mutant(
        "hindered-all-move-about",
        "monitor/core/assignment.py",
        "_last_resort",
        "if owner and all_hindered:",
        "if False:",
        (f"{_CORE}/test_assignment.py::test_where_all_are_hindered_nothing_moves",),
    ),
    # --- policies and seconds ---------------------------------------------------------------------
    Mutant(
        "policy-breaks-a-relation",
        "monitor/core/policy.py",
        "Policy._hold",
        "if lower * relation.times <= upper:",
        "if True:",
        (
            f"{_CORE}/test_policy.py::"
            "test_a_policy_that_breaks_a_relation_is_refused_and_told_which",
        ),
    ),
    Mutant(
        "seconds-relate-to-nothing",
        "monitor/core/timing.py",
        "broken",
        "if not holds",
        "if False",
        (f"{_CORE}/test_timing.py::test_a_broken_relation_is_told",),
    ),
    Mutant(
        "policy-single-observer-too-soon",
        "monitor/core/policy.py",
        "Policy.__post_init__",
        "if self.alone_seconds <= LED_MARK:",
        "if False:",
        (f"{_REGISTRY}/test_fleet.py::test_a_policy_nobody_can_follow[bad4]",),
    ),
    Mutant(
        "recoveries-hinder-one-another",
        "monitor/core/schedule.py",
        "wants_login",
        " and not status.ok_rounds",
        "",
        (f"{_FAULTS}/test_targets.py::test_killed_with_many_databases",),
    ),
    Mutant(
        "history-head-by-reading-it-all",
        "monitor/registry/chains.py",
        "ends",
        "listed.render_derived()",
        "listed",
        (f"{_REGISTRY}/test_transitions.py::test_the_head_of_a_chain_is_one_probe_of_an_index",),
    ),
    # --- logins: many databases of one address ----------------------------------------------------
    Mutant(
        "admission-shares-nothing",
        "monitor/feeler/admission.py",
        "Endpoint.report",
        "if result.cause in SHARED_CAUSES:",
        "if False:",
        (f"{_FEELER}/test_admission.py::test_one_connect_that_times_out_speaks_for_all_who_wait",),
    ),
    Mutant(
        "admission-shares-twice",
        "monitor/feeler/admission.py",
        "Endpoint.admit",
        "if self._failure and self._failure.began > since:",
        "if self._failure:",
        (
            f"{_FEELER}/test_admission.py::"
            "test_a_refusal_is_shared_within_its_deadline_and_told_to_nobody_twice",
        ),
    ),
    Mutant(
        "feels-begin-all-at-once",
        "workers/worker/patrol.py",
        "Patrol.run",
        "if number % ABREAST == 0:",
        "if False:",
        (
            f"{_WORKERS}/test_patrol.py::"
            "test_feels_that_are_due_at_once_hold_the_loop_up_a_few_at_a_time",
        ),
    ),
    Mutant(
        "admission-shares-with-ourselves",
        "monitor/feeler/session.py",
        "Session._conclude",
        "self._felt = attempt.shared_ended or time.monotonic()",
        "self._felt = 0.0",
        (
            f"{_FEELER}/test_admission.py::test_our_own_refusal_is_no_news_to_ourselves",
            f"{_FAULTS}/test_targets.py::test_restarted",
        ),
    ),
    Mutant(
        "admission-shares-after-an-answer",
        "monitor/feeler/admission.py",
        "Endpoint.reached",
        "self._failure = None",
        "pass",
        (
            f"{_FEELER}/test_admission.py::"
            "test_a_host_that_takes_connections_again_is_not_talked_down",
        ),
    ),
    # --- logins -----------------------------------------------------------------------------------
    Mutant(
        "login-failed-once-is-forgotten",
        "monitor/core/schedule.py",
        "wants_login",
        "if status.alive is not None:",
        "if False:",
        (f"{_FAULTS}/test_logins.py::test_logins_stop[password]",),
    ),
    Mutant(
        "login-refused-is-tried-again",
        "monitor/core/access.py",
        "Access.held",
        "return self.cause if waits else None",
        "return None",
        (f"{_FAULTS}/test_targets.py::test_password_rotated[plain]",),
    ),
    Mutant(
        "login-refused-does-not-move",
        "monitor/live/observations.py",
        "",
        "*STATUS_FIELDS, *access.ACCESS_FIELDS",
        "*STATUS_FIELDS",
        (f"{_FAULTS}/test_targets.py::test_password_rotated[plain]",),
    ),
    Mutant(
        "login-deadline-of-a-query",
        "monitor/feeler/signals.py",
        "Signals._log_in_and_ask",
        "attempt.start_part(attempt.login_deadline)",
        "attempt.start_part(self._deadline)",
        (f"{_FEELER}/test_session.py::test_a_login_far_away_has_a_deadline_of_its_own",),
    ),
    Mutant(
        "login-queue-lets-all-in",
        "monitor/feeler/login_queue.py",
        "LoginQueue._serve_next",
        "self.holder is not None or not self.waiting",
        "not self.waiting",
        (f"{_FEELER}/test_session.py::test_logins_of_a_role_are_proved_one_at_a_time",),
    ),
    Mutant(
        "login-pace-of-each-worker",
        "monitor/feeler/login_queue.py",
        "Pace.begins",
        "SPACING * self._workers()",
        "SPACING",
        (
            f"{_FEELER}/test_login_queue.py::"
            "test_each_worker_takes_its_share_of_the_pace_and_what_decides_waits_for_nobody",
        ),
    ),
    Mutant(
        "login-that-hangs-is-told-to-nobody",
        "monitor/feeler/servers.py",
        "Server.login_failed",
        "if self._failures < SHARED_FROM:",
        "if True:",
        (f"{_FAULTS}/test_storms.py::test_a_postmaster_of_many_frozen",),
    ),
    Mutant(
        "neighbours-are-not-counted",
        "workers/worker/observing.py",
        "Observer._login_interval",
        "neighbours=watch.session.neighbours",
        "neighbours=1",
        (
            f"{_WORKERS}/test_observing.py::"
            "test_two_workers_prove_one_login_a_second_at_a_server_of_a_hundred_each",
        ),
    ),
    Mutant(
        "slow-gauges-hidden-by-a-storm",
        "workers/worker/observing.py",
        "Observer.observe",
        "notes.slow_seconds, notes.slow_complete",
        "notes.slow_seconds, True",
        (
            f"{_WORKERS}/test_observing.py::"
            "test_slow_gauges_are_due_again_as_their_cost_and_their_luck_say",
        ),
    ),
    Mutant(
        "login-proofs-all-at-once",
        "workers/worker/observing.py",
        "Observer._plan_next",
        "grid(watch.database, login_every, now) - now",
        "login_every",
        (f"{_FAULTS}/test_storms.py::test_a_postmaster_of_many_frozen",),
    ),
    Mutant(
        "sessions-of-a-dead-host-stay",
        "monitor/feeler/questions.py",
        "",
        '"tcp_keepalives_idle": "10"',
        '"tcp_keepalives_idle": "0"',
        (f"{_FEELER}/test_session.py::test_a_server_soon_misses_a_host_of_ours_that_died",),
    ),
    Mutant(
        "login-that-works-is-told-to-nobody",
        "monitor/feeler/servers.py",
        "LoginReports.news",
        "self._relies_on_others and",
        "False and",
        (
            f"{_FEELER}/test_session.py::"
            "test_logins_that_hang_twice_are_told_to_all_who_keep_a_session_there",
        ),
    ),
    Mutant(
        "login-of-another-is-proof",
        "monitor/feeler/servers.py",
        "LoginReports.news",
        "self._relies_on_others and",
        "",
        (
            f"{_FEELER}/test_session.py::"
            "test_logins_that_hang_twice_are_told_to_all_who_keep_a_session_there",
        ),
    ),
    Mutant(
        "login-of-a-role-is-told-to-all",
        "monitor/feeler/servers.py",
        "LoginReports.login_failed",
        "if failed.cause in SHARED_CAUSES or",
        "if True or",
        (f"{_FEELER}/test_session.py::test_what_a_role_is_told_is_told_to_nobody_else",),
    ),
    Mutant(
        "login-without-an-address-is-told",
        "monitor/feeler/servers.py",
        "LoginReports.login_failed",
        "or not attempt.tried",
        "",
        (
            f"{_FEELER}/test_moving_names.py::test_a_login_whose_name_is_gone_is_told_beside_the_kept_session",
        ),
    ),
    Mutant(
        "storm-is-evidence",
        "monitor/feeler/backoff.py",
        "LoginBackoff.wait",
        "if now >= excused_until or not",
        "if True or not",
        (f"{_FEELER}/test_backoff.py::test_a_storm_of_ours_gives_way_until_there_is_room",),
    ),
    Mutant(
        "storm-shares-one-deadline",
        "monitor/feeler/attempt.py",
        "Attempt.restart_login",
        "self.start_part(self.deadline)",
        "pass",
        (
            f"{_FEELER}/test_backoff.py::"
            "test_each_try_of_a_login_that_gives_way_has_a_deadline_of_its_own",
        ),
    ),
    Mutant(
        "storm-is-an-excuse-for-ever",
        "monitor/feeler/backoff.py",
        "LoginBackoff.wait",
        "excused_until = full.since + EXCUSED_SECONDS",
        "excused_until = now + EXCUSED_SECONDS",
        (f"{_FEELER}/test_backoff.py::test_a_server_that_is_full_is_known_in_time",),
    ),
    Mutant(
        "storm-of-few",
        "monitor/feeler/backoff.py",
        "LoginBackoff._is_storm",
        "len(self._begun) == STORM_LOGINS and",
        "",
        (f"{_FEELER}/test_backoff.py::test_a_few_logins_are_no_storm",),
    ),
    Mutant(
        "login-gives-no-way",
        "monitor/feeler/session.py",
        "Session._prove_login",
        "outcome.cause is Cause.ROLE_FULL",
        "False",
        (f"{_FEELER}/test_session.py::test_where_the_role_is_full_the_kept_session_gives_way",),
    ),
    Mutant(
        "login-gives-way-to-a-full-server",
        "monitor/feeler/session.py",
        "Session._log_in_instead",
        "or not self._reader.has_room(outcome)",
        "",
        (f"{_FEELER}/test_session.py::test_where_the_server_is_full_too_the_kept_session_is_kept",),
    ),
    Mutant(
        "login-that-waits-at-a-full-server-is-not-told",
        "monitor/feeler/session.py",
        "Session._prove_login",
        "and self._reader.has_room(outcome)",
        "",
        (f"{_FEELER}/test_pooler.py::test_a_pooler_whose_server_is_full_keeps_logins_waiting",),
    ),
    Mutant(
        "login-gives-way-to-a-pool-for-ever",
        "monitor/feeler/session.py",
        "Session._prove_login",
        "outcome.cause is Cause.ROLE_FULL",
        "outcome.cause in (Cause.ROLE_FULL, Cause.POOLER_WAITING)",
        (
            f"{_FEELER}/test_pooler.py::"
            "test_a_pool_that_has_room_again_lends_a_connection_beside_the_kept_one",
        ),
    ),
    Mutant(
        "liveness-of-one-kind",
        "monitor/feeler/liveness.py",
        "LivenessCheck.log_in",
        "if not answer:",
        "if False:",
        (
            f"{_FEELER}/test_session.py::"
            "test_a_pooler_that_knows_no_gss_answers_the_second_question",
        ),
    ),
    Mutant(
        "login-told-elsewhere-is-told-here",
        "monitor/feeler/servers.py",
        "Server.login_worked_since",
        "where == hostaddr and",
        "",
        (
            f"{_FEELER}/test_servers.py::"
            "test_what_one_address_says_of_logins_is_said_of_that_one_alone",
        ),
    ),
    Mutant(
        "pooled-forgotten-by-the-next-worker",
        "workers/worker/observing.py",
        "Observer.observe",
        "pooled=access.pooled",
        "pooled=False",
        (f"{_FAULTS}/test_poolers.py::test_next_worker_knows_the_pooler",),
    ),
    Mutant(
        "pooler-wait-is-silence",
        "monitor/feeler/signals.py",
        "Signals._minding_pooler",
        "Failed(Cause.POOLER_WAITING,",
        "Failed(failed.cause,",
        (f"{_FAULTS}/test_poolers.py::test_pool_used_up",),
    ),
    Mutant(
        "pooler-silent-itself-is-a-wait",
        "monitor/feeler/signals.py",
        "Signals._minding_pooler",
        "not (attempt.answered or waiting.sqlstate)",
        "False",
        (f"{_FEELER}/test_pooler.py::test_a_pooler_that_is_silent_itself_is_silent",),
    ),
    Mutant(
        "pooler-word-without-severity-is-a-reset",
        "monitor/feeler/wire.py",
        "_severity",
        "(pq.DiagnosticField.SEVERITY_NONLOCALIZED, pq.DiagnosticField.SEVERITY)",
        "(pq.DiagnosticField.SEVERITY_NONLOCALIZED,)",
        (f"{_FEELER}/test_pooler.py::test_a_pooler_says_by_its_code_that_it_has_no_connection",),
    ),
    Mutant(
        "login-for-each-idle-end",
        "monitor/feeler/keeping.py",
        "Keeping.may_keep",
        "now >= self._keep_again",
        "True",
        (
            f"{_FEELER}/test_session.py::"
            "test_a_server_that_ends_idle_sessions_is_met_by_beats_without_one",
        ),
    ),
    Mutant(
        "login-that-hangs-is-silence",
        "monitor/feeler/attempt.py",
        "Attempt.expired",
        "and self.proof_requested and",
        "and False and",
        (
            f"{_FEELER}/test_session.py::"
            "test_a_server_that_asks_who_we_are_and_then_hangs_is_not_silent",
        ),
    ),
    Mutant(
        "names-are-kept-for-half-a-minute",
        "monitor/feeler/names.py",
        "",
        "LOOKUP_TTL = 1.0",
        "LOOKUP_TTL = 30.0",
        (f"{_FAULTS}/test_names.py::test_a_name_that_leaves_a_dead_host",),
    ),
    Mutant(
        "names-are-not-watched",
        "monitor/feeler/name_watch.py",
        "NameWatch.has_moved",
        "return not self._leads_to(hostaddr)",
        "return False",
        (f"{_FEELER}/test_moving_names.py::test_a_kept_session_follows_its_name",),
    ),
    Mutant(
        "names-excuse-nothing",
        "monitor/feeler/name_watch.py",
        "NameWatch.check_negative",
        "self._left |= tried",
        "return",
        (
            f"{_FEELER}/test_moving_names.py::"
            "test_a_negative_about_an_address_the_name_has_left_proves_nothing",
        ),
    ),
    Mutant(
        "names-excuse-for-ever",
        "monitor/feeler/name_watch.py",
        "NameWatch.check_negative",
        "tried <= self._left or any(",
        "any(",
        (
            f"{_FEELER}/test_moving_names.py::"
            "test_a_name_that_leads_elsewhere_with_every_answer_excuses_each_address_once",
        ),
    ),
    Mutant(
        "doubt-of-a-left-address-counts",
        "monitor/core/verdict.py",
        "_where_it_leads",
        "doubt = without_findings(doubt)",
        "pass",
        (
            f"{_CORE}/test_machine_stories.py::"
            "test_what_was_found_where_the_name_led_before_does_not_count",
        ),
    ),
    Mutant(
        "cleartext-to-anybody",
        "monitor/core/database.py",
        "Address.tells_password",
        "return self.verified or self.allow_cleartext",
        "return True",
        (
            f"{_FEELER}/test_cleartext.py::"
            "test_a_server_that_asks_for_it_in_clear_gets_no_password",
            f"{_FAULTS}/test_logins.py::test_password_in_clear[plain]",
        ),
    ),
    Mutant(
        "echoes-are-quoted",
        "monitor/feeler/causes.py",
        "clean",
        "_echo(secret).sub(",
        "re.compile(re.escape(secret)).sub(",
        (f"{_FEELER}/test_cleartext.py::test_who_is_allowed_to_ask_gets_it_and_is_not_quoted",),
    ),
    Mutant(
        "admission-in-the-deadline",
        "monitor/feeler/signals.py",
        "Signals._connect",
        "attempt.timeout = None if self.kept else timeout",
        "attempt.timeout = None",
        (
            f"{_FEELER}/test_admission.py::"
            "test_a_hundred_databases_of_a_mute_server_all_get_their_evidence",
        ),
    ),
    # --- whose a Redis is, who leads --------------------------------------------------------------
    Mutant(
        "foreign-step",
        "monitor/live/scripts/prelude.lua",
        "objection",
        "if holder and holder ~= registry then return 'foreign' end",
        "",
        (
            f"{_LIVE}/test_generation.py::"
            "test_a_leader_of_another_registry_is_refused_by_every_step",
        ),
    ),
    Mutant(
        "foreign-lead",
        "monitor/registry/leadership.py",
        "acquire",
        'set(signed) - {last.registry_name, ""}',
        "set[str]()",
        (
            f"{_WORKERS}/test_supervisor.py::"
            "test_the_supervisor_of_another_registry_leads_nowhere_else",
        ),
    ),
    Mutant(
        "foreign-names-mix",
        "monitor/live/generation.py",
        "lead",
        "if not chosen:",
        "if False:",
        (
            f"{_LIVE}/test_generation.py::"
            "test_of_two_registries_that_claim_an_empty_redis_one_has_it_wholly",
        ),
    ),
    Mutant(
        "foreign-unclaimed",
        "workers/supervisor/leader.py",
        "Leader._recover",
        "await self._claim()",
        "pass",
        (f"{_WORKERS}/test_supervisor.py::test_a_leader_claims_before_it_opens",),
    ),
    Mutant(
        "foreign-journal",
        "workers/supervisor/historian.py",
        "Historian._check_registry",
        "raise ForeignRedis(self._ours, holder)",
        "pass",
        (
            f"{_WORKERS}/test_supervisor.py::"
            "test_the_supervisor_of_another_registry_leads_nowhere_else",
        ),
    ),
    Mutant(
        "registry-restored",
        "monitor/live/scripts/restore.lua",
        "merge_registry",
        "if more > 0 or",
        "if",
        (
            f"{_WORKERS}/test_supervisor.py::"
            "test_a_redis_that_forgot_its_registry_is_left_to_those_who_remember",
        ),
    ),
    Mutant(
        "take-over-obeyed",
        "monitor/core/custody.py",
        "Custody._sign",
        "found > known or opener",
        "opener",
        (f"{_WORKERS}/test_supervisor.py::test_a_take_over_by_a_persons_word_is_obeyed",),
    ),
    Mutant(
        "stuck-leader",
        "workers/supervisor/process.py",
        "Supervisor._hold_lead",
        "leader.stuck_for >= self._settings.lease",
        "False",
        (
            f"{_WORKERS}/test_supervisor.py::"
            "test_a_leader_that_completes_no_sweep_makes_way_whatever_the_reason",
        ),
    ),
    Mutant(
        "withdrawal-gets-nowhere",
        "workers/supervisor/placements.py",
        "Placements._took_away",
        "self.progress_at = time.monotonic()",
        "",
        (f"{_WORKERS}/test_supervisor.py::test_a_long_withdrawal_gets_on",),
    ),
    Mutant(
        "unproven-for-ever",
        "monitor/core/unproven.py",
        "Unproven.was_given_up",
        "refused or owner in self._barred",
        "False",
        (f"{_WORKERS}/test_leader.py::test_one_database_unproven_moves_alone",),
    ),
    Mutant(
        "idle-worker-never-barred",
        "monitor/core/unproven.py",
        "Unproven.bar",
        "now + UNPROVEN_BARRED",
        "now",
        (
            f"{_WORKERS}/test_leader.py::"
            "test_what_its_owner_never_proves_is_moved_and_who_proves_nothing_gets_nothing",
        ),
    ),
    Mutant(
        "last-word-for-ever",
        "monitor/live/generation.py",
        "is_complete",
        "== {lease}",
        "!= {None}",
        (
            f"{_WORKERS}/test_supervisor.py::"
            "test_a_memory_marked_complete_counts_for_the_next_leader_alone",
        ),
    ),
    Mutant(
        "history-all-or-nothing",
        "workers/supervisor/historian.py",
        "Historian.drain",
        "await self._write_apart(entries, exc)",
        "raise exc",
        (
            f"{_WORKERS}/test_historian.py::"
            "test_a_database_that_cannot_be_written_holds_up_nobody_else",
        ),
    ),
    Mutant(
        "renumber-anything",
        "monitor/core/chain.py",
        "renumber",
        "if chain[-1] != anchor:",
        "if False:",
        (
            f"{_REGISTRY}/test_transitions.py::"
            "test_a_fork_from_further_back_than_is_read_counts_as_from_there",
        ),
    ),
    Mutant(
        "lease-in-the-future",
        "monitor/registry/leadership.py",
        "_runs",
        "Leadership.expires_at <= _in(seconds)",
        "Leadership.expires_at > _now()",
        (f"{_REGISTRY}/test_leadership.py::test_a_lease_dated_in_the_future_is_nobodys",),
    ),
    Mutant(
        "pool-demoted",
        "monitor/registry/store.py",
        "_leave_demoted",
        "context.is_disconnect = True",
        "pass",
        (f"{_REGISTRY}/test_store.py::test_connections_to_a_demoted_server_are_not_used_again",),
    ),
    Mutant(
        "pool-standby",
        "monitor/registry/store.py",
        "_ping",
        "if demoted:",
        "if False:",
        (f"{_REGISTRY}/test_store.py::test_kept_connections_to_a_standby_are_replaced",),
    ),
    # --- what users meet --------------------------------------------------------------------------
    Mutant(
        "empty-name",
        "monitor/terminal/arguments.py",
        "check_not_empty",
        "if not name.strip():",
        "if False:",
        (
            "tests/test_cli.py::"
            "test_a_variable_that_is_not_set_is_a_usage_error_not_the_whole_fleet",
        ),
    ),
    Mutant(
        "condition-over-nothing",
        "monitor/cli.py",
        "get",
        "max(1, len(wanted))",
        "len(wanted)",
        ("tests/test_cli.py::test_a_condition_over_nothing_is_false",),
    ),
    Mutant(
        "list-without-a-name",
        "monitor/web/app.py",
        "create_app",
        "redirect_slashes=False",
        "redirect_slashes=True",
        ("tests/web/test_last_observation.py::test_a_path_without_its_name_is_no_list",),
    ),
    Mutant(
        "change-any-revision",
        "monitor/registry/fleet.py",
        "_change",
        "mine if revision is None else (*mine, Databases.revision == revision)",
        "mine",
        (f"{_REGISTRY}/test_fleet.py::test_a_change_is_made_at_the_revision_it_was_meant_for",),
    ),
    Mutant(
        "seal-nothing-new",
        "monitor/registration/changes.py",
        "Registration._new_values",
        "if changes.url != known:",
        "if False:",
        ("tests/web/test_databases.py::test_credentials_are_changed_and_the_leader_told",),
    ),
    Mutant(
        "one-address-hides-a-page",
        "monitor/secrets.py",
        "SecretBox.readable_address",
        "except InvalidInput:",
        "except KeyError:",
        (
            "tests/web/test_databases.py::"
            "test_an_address_that_is_no_longer_allowed_hides_no_other_of_its_page",
        ),
    ),
    Mutant(
        "reason-of-another-cause",
        "monitor/live/reasons.py",
        "reasons",
        "if reason and reason.cause == one.cause:",
        "if reason:",
        (
            f"{_LIVE}/test_reasons.py::"
            "test_a_reason_is_kept_for_a_while_and_speaks_for_its_cause_alone",
        ),
    ),
    Mutant(
        "reason-untold",
        "workers/worker/recorder.py",
        "Recorder._take_reply",
        "self._reasons.note(beat.observation)",
        "pass",
        (f"{_FAULTS}/test_targets.py::test_shut_out",),
    ),
    Mutant(
        "key-over-sealed-rows",
        "monitor/local/up.py",
        "Up._have_key",
        "if kept:",
        "if False:",
        ("tests/system/test_up.py::test_no_new_key_is_made_over_sealed_addresses",),
    ),
    Mutant(
        "follow-the-old",
        "monitor/cli.py",
        "transitions",
        "max(limit, WINDOW) if follow else limit",
        "limit",
        ("tests/test_cli.py::test_following_shows_what_is_new_and_nothing_old",),
    ),
    Mutant(
        "unknown-while-rebuilt",
        "monitor/web/last_observation.py",
        "_unobserved",
        "if not (await generation.generation(live)).open:",
        "if False:",
        (
            "tests/web/test_last_observation.py::"
            "test_while_redis_is_rebuilt_nothing_is_said_not_to_exist",
        ),
    ),
    Mutant(
        "any-redis-for-any-files",
        "monitor/local/embedded.py",
        "Redis._set_up",
        "find_redis(made=made)",
        "find_redis()",
        ("tests/local/test_embedded.py::test_redis_goes_on_with_the_program_that_made_its_files",),
    ),
    # --- old and new side by side -----------------------------------------------------------------
    Mutant(
        "quarantine-none",
        "monitor/live/quarantine.py",
        "decode",
        "except Exception as exc:",
        "except ZeroDivisionError as exc:",
        (
            f"{_WORKERS}/test_newer_version.py::"
            "test_a_leader_leads_on_past_a_state_it_does_not_know",
            f"{_WORKERS}/test_newer_version.py::test_a_worker_watches_what_it_can_read",
            f"{_WORKERS}/test_newer_version.py::test_samples_are_taken_of_what_can_be_read",
            "tests/web/test_newer_version.py::test_a_list_names_what_it_leaves_out",
            f"{_FAULTS}/test_versions.py::test_written_by_a_newer_version",
        ),
    ),
    Mutant(
        "place-lost-with-its-row",
        "monitor/live/assignments.py",
        "_owned",
        'owner or ""',
        '""',
        (
            f"{_WORKERS}/test_newer_version.py::"
            "test_a_leader_leads_on_past_a_state_it_does_not_know",
        ),
    ),
    Mutant(
        "unreadable-told-as-new",
        "monitor/web/last_observation.py",
        "one",
        "if name in found.unreadable:",
        "if False:",
        ("tests/web/test_newer_version.py::test_a_row_that_cannot_be_read_is_never_told_as_new",),
    ),
    Mutant(
        "fields-all-known",
        "monitor/core/event.py",
        "_transition",
        "fitting(Transition, fields)",
        'dict((key, value) for key, value in fields.items() if key != "type")',
        (
            f"{_LIVE}/test_newer_version.py::"
            "test_a_transition_with_fields_of_a_newer_version_is_read",
        ),
    ),
    # --- what waits while Redis is away -----------------------------------------------------------
    Mutant(
        "requests-pile-up",
        "monitor/core/holding.py",
        "Holding.observe",
        "_without_older_requests(self.pending, events) + events",
        "self.pending + events",
        (f"{_WORKERS}/test_recorder.py::test_hours_without_redis_leave_one_request_of_each_doubt",),
    ),
    Mutant(
        "batches-without-end",
        "workers/worker/recorder.py",
        "Recorder._take",
        "if batch and size > self._bytes:",
        "if False:",
        (
            f"{_WORKERS}/test_recorder.py::"
            "test_a_batch_that_takes_too_long_is_halved_and_the_others_go_first",
        ),
    ),
    # --- ids --------------------------------------------------------------------------------------
    Mutant(
        "record-twin",
        "monitor/live/scripts/record.lua",
        "record",
        "return 'twin'",
        "",
        (f"{_WORKERS}/test_recorder.py::test_a_twin_is_told_so_and_says_nothing_more",),
    ),
    Mutant(
        "claim-shared",
        "monitor/live/scripts/claim.lua",
        "",
        "if holder and holder ~= ARGV[1] then return 0 end",
        "",
        (
            f"{_WORKERS}/test_worker.py::test_a_worker_whose_id_another_process_holds_ends",
            f"{_FAULTS}/test_processes.py::test_worker_meets_its_twin",
        ),
    ),
    # --- idle workers, and what lives leave behind ------------------------------------------------
    Mutant(
        "idle-term-forgotten",
        "monitor/core/custody.py",
        "Custody.enter",
        "self.term = max(self.term, opened.term)",
        "pass",
        (
            f"{_WORKERS}/test_recorder.py::"
            "test_a_worker_that_owned_nothing_follows_a_registry_whose_terms_were_lower",
        ),
    ),
    Mutant(
        "outlived-for-ever",
        "workers/worker/recorder.py",
        "Recorder._end",
        "await generation.close_generation(self._live, opened, term + 1)",
        "pass",
        (
            f"{_WORKERS}/test_supervisor.py::"
            "test_a_worker_that_outlived_all_others_is_followed_and_follows",
        ),
    ),
    Mutant(
        "close-anything",
        "monitor/live/scripts/close.lua",
        "",
        "if not name or not newer(ARGV[1], string.match(name, ':(.*)$')) then return 0 end",
        "",
        (
            f"{_LIVE}/test_generation.py::"
            "test_whoever_has_entered_a_newer_generation_ends_an_older_one",
        ),
    ),
    Mutant(
        "reports-kept",
        "workers/worker/recorder.py",
        "Recorder._enter",
        "await generation.withdraw(self._live, self._worker)",
        "pass",
        (f"{_WORKERS}/test_recorder.py::test_a_report_ends_when_the_generation_is_open",),
    ),
    Mutant(
        "presence-outlives-its-worker",
        "workers/worker/process.py",
        "Worker._leave",
        "await presence.leave(self._live, self.id)",
        "pass",
        (f"{_WORKERS}/test_worker.py::test_a_worker_that_leaves_early_is_gone_at_once_too",),
    ),
    Mutant(
        "change-forgotten",
        "workers/supervisor/fleet_view.py",
        "FleetView.refresh",
        "if self._due_at:",
        "if True:",
        (f"{_WORKERS}/test_leader.py::test_a_change_told_during_a_read_of_the_fleet_is_read_too",),
    ),
    Mutant(
        "old-address-for-ever",
        "workers/worker/patrol.py",
        "Patrol._learn",
        "watch.revision != target.revision or ",
        "",
        (f"{_FAULTS}/test_targets.py::test_address_changed",),
    ),
    Mutant(
        "retired-goes-on",
        "workers/supervisor/leader.py",
        "Leader._withdraw",
        "self._places.keys() - fleet.databases.keys()",
        "self._places.keys() & fleet.paused",
        (f"{_FAULTS}/test_targets.py::test_no_longer_watched",),
    ),
    # --- the door ---------------------------------------------------------------------------------
    Mutant(
        "web-endless-head",
        "monitor/web/http_limits.py",
        "BoundedProtocol.data_received",
        "if self._size > (MAX_REQUEST if self._in_body else MAX_HEAD):",
        "if False:",
        ("tests/web/test_http_limits.py::test_too_large_a_head_is_told_so",),
    ),
    Mutant(
        "web-crowded-address",
        "monitor/web/http_limits.py",
        "ConnectionLimits.begin",
        "if len(neighbours) > self._unfinished_most:",
        "if False:",
        ("tests/web/test_http_limits.py::test_crowds_of_half_requests_make_room_for_whole_ones",),
    ),
    Mutant(
        "web-descriptors",
        "monitor/web/http_limits.py",
        "ConnectionLimits.enter",
        "if len(self._present) > self._most:",
        "if False:",
        ("tests/web/test_http_limits.py::test_descriptors_are_kept_for_newcomers",),
    ),
    Mutant(
        "web-half-a-request-stays",
        "monitor/web/http_limits.py",
        "BoundedProtocol._expire",
        'self.end(HTTPStatus.REQUEST_TIMEOUT, "too_slow")',
        "pass",
        ("tests/web/test_http_limits.py::test_half_a_request_ends_in_time",),
    ),
    Mutant(
        "web-half-a-request-cuts-answers-off",
        "monitor/web/http_limits.py",
        "BoundedProtocol._expire",
        "if self.flow.read_paused or self._is_behind_another():",
        "if self.flow.read_paused:",
        ("tests/web/test_http_limits.py::test_half_a_request_waits_for_the_answers_before_it",),
    ),
    Mutant(
        "web-half-a-body-counts",
        "monitor/web/security.py",
        "_whole_body",
        'raise Problem(400, "body-broke-off", "The connection ended before the body did.")',
        "break",
        ("tests/web/test_http_limits.py::test_half_a_body_ends_in_time_and_reaches_nobody",),
    ),
    Mutant(
        "web-nobody-watches",
        "monitor/live/watched.py",
        "Watchers.troubles",
        "if not self.workers:",
        "if False:",
        ("tests/test_cli.py::test_get_says_first_what_is_not_as_green_as_it_looks",),
    ),
    Mutant(
        "web-overdue",
        "monitor/live/watched.py",
        "_part",
        "age is None or age > _stale_after(policy)",
        "False",
        ("tests/web/test_health.py::test_observations_that_do_not_come_are_a_warning",),
    ),
    Mutant(
        "home-of-another",
        "monitor/private.py",
        "read",
        "if not owners <= trusted:",
        "if False:",
        ("tests/test_private.py::test_a_runtime_file_of_another_user_sends_no_address_anywhere",),
    ),
    Mutant(
        "audit-silent",
        "monitor/web/security.py",
        "Guard.__call__",
        "if method not in SAFE or reply.status in REFUSED:",
        "if False:",
        ("tests/web/test_security.py::test_every_change_and_refusal_leaves_a_line",),
    ),
    Mutant(
        "redis-refusal-is-a-bug",
        "monitor/live/connections.py",
        "_kind",
        '.rpartition(_OF_PIPELINE)[2].lstrip("(\'\\"")',
        "",
        (
            "tests/live/test_connections.py::"
            "test_a_server_that_refuses_to_write_is_named_by_every_call",
        ),
    ),
    Mutant(
        "cancelled-once",
        "workers/process.py",
        "end",
        "timeout=min(CANCEL_AGAIN, left)",
        "timeout=min(3600.0, left)",
        (
            "tests/workers/test_process.py::test_a_task_that_dropped_its_cancellation_is_cancelled_again",
        ),
    ),
    Mutant(
        "handover-without-end",
        "workers/worker/process.py",
        "Worker._hand_over",
        "_pause_until(until)",
        "asyncio.sleep(LOOK_EVERY)",
        (f"{_WORKERS}/test_worker.py::test_a_handover_ends_in_time_though_its_timeout_is_dropped",),
    ),
    Mutant(
        "drain-without-end",
        "workers/worker/process.py",
        "Worker._drain",
        "_pause_until(until)",
        "asyncio.sleep(LOOK_EVERY)",
        (f"{_WORKERS}/test_worker.py::test_a_drain_ends_in_time_though_its_timeout_is_dropped",),
    ),
    Mutant(
        "journal-hangs-up-early",
        "monitor/live/journal.py",
        "_take",
        "live.journal.pipeline",
        "live.cache.pipeline",
        (f"{_LIVE}/test_journal.py::test_a_read_outwaits_a_stall_of_redis",),
    ),
    Mutant(
        "claim-dropped-by-a-failed-read",
        "workers/supervisor/historian.py",
        "Historian.drain",
        "self._held = await self._abandoned()",
        "self._held = []; await self._abandoned()",
        (
            "tests/workers/test_historian.py::test_what_was_claimed_is_held_when_the_next_read_fails",
        ),
    ),
    Mutant(
        "history-not-written",
        "monitor/live/journal.py",
        "_ask_for_oldest",
        'if group and group["pending"]:',
        "if False:",
        ("tests/web/test_health.py::test_what_is_not_written_down_in_time_is_a_warning",),
    ),
    # --- keeping: what is kept, for how long, and what one bad row may stop -----------------------
    Mutant(
        "retention-takes-what-goes-on",
        "monitor/registry/retention.py",
        "",
        "AND target = 'available' AND NOT superseded",
        "AND NOT superseded",
        (
            f"{_REGISTRY}/test_retention.py::"
            "test_the_newest_stays_and_all_since_it_was_available_last",
        ),
    ),
    Mutant(
        "retention-by-a-clock-that-was-wrong",
        "monitor/registry/retention.py",
        "",
        "greatest(at, recorded_at) AS newest",
        "at AS newest",
        (f"{_REGISTRY}/test_retention.py::test_nor_does_a_clock_that_was_wrong",),
    ),
    Mutant(
        "journal-trimmed-by-leaders-alone",
        "workers/supervisor/process.py",
        "Supervisor._trim",
        "await self._historian.trim()",
        "await self._historian.trim() if self._leader else None",
        (
            f"{_WORKERS}/test_supervisor.py::"
            "test_a_redis_that_is_full_of_acknowledged_entries_gets_room_again",
        ),
    ),
    Mutant(
        "outlived-at-an-equal-term",
        "workers/worker/recorder.py",
        "Recorder._end",
        "opened, term + 1)",
        "opened, term)",
        (
            f"{_WORKERS}/test_supervisor.py::"
            "test_a_worker_that_outlived_all_others_is_followed_and_follows[1]",
        ),
    ),
    Mutant(
        "retention-by-one-clock",
        "monitor/registry/retention.py",
        "",
        "least(now(), to_timestamp(:now))",
        "to_timestamp(:now)",
        (f"{_REGISTRY}/test_retention.py::test_no_single_clock_deletes",),
    ),
    Mutant(
        "evidence-keeps-old-words",
        "alembic/versions/0004_words.py",
        "_rename_cause",
        """_execute(EVIDENCE, before=f'"cause": "{before}"', after=f'"cause": "{after}"')""",
        "pass",
        (f"{_REGISTRY}/test_stored_words.py::test_no_old_word_is_left",),
    ),
    Mutant(
        "migration-locks-the-fleet-first",
        "alembic/versions/0004_words.py",
        "upgrade",
        "_rename_rules(RULES)",
        'op.execute("LOCK policies")\n    _rename_rules(RULES)',
        (
            f"{_REGISTRY}/test_stored_words.py::"
            "test_a_long_migration_ends_and_the_fleet_is_read_meanwhile[migrate]",
        ),
    ),
    Mutant(
        "migration-in-a-statements-time",
        "monitor/registry/store.py",
        "migration",
        "SET LOCAL statement_timeout = 0",
        "SELECT 0",
        (
            f"{_REGISTRY}/test_stored_words.py::"
            "test_a_long_migration_ends_and_the_fleet_is_read_meanwhile[migrate]",
            f"{_REGISTRY}/test_stored_words.py::"
            "test_a_long_migration_ends_and_the_fleet_is_read_meanwhile[by_alembic]",
        ),
    ),
    Mutant(
        "retention-undone-by-a-replay",
        "monitor/registry/transitions.py",
        "_unexpired",
        "if not days or not fresh:",
        "if True:",
        (f"{_REGISTRY}/test_retention.py::test_what_is_told_again_stays_gone_and_is_durable",),
    ),
    Mutant(
        "retention-numbers-anew",
        "monitor/registry/chains.py",
        "_numbered",
        "version == 1",
        "True",
        (
            f"{_REGISTRY}/test_retention.py::"
            "test_a_late_arrival_and_a_fork_number_on_from_what_is_left",
        ),
    ),
    Mutant(
        "late-arrival-reads-all",
        "monitor/registry/chains.py",
        "_newest",
        ".limit(most)",
        "",
        (
            f"{_REGISTRY}/test_transitions.py::"
            "test_a_late_arrival_near_the_head_reads_no_more_than_the_tail",
        ),
    ),
    Mutant(
        "fleet-row-stops-all",
        "monitor/registry/fleet.py",
        "_readable",
        "except Exception as exc:",
        "except ArithmeticError as exc:",
        (
            f"{_REGISTRY}/test_fleet.py::"
            "test_a_page_of_nothing_but_rows_that_cannot_be_read_ends_no_list",
            f"{_WORKERS}/test_leader.py::"
            "test_a_row_of_the_registry_that_cannot_be_read_is_left_as_it_is",
        ),
    ),
    Mutant(
        "fleet-row-unread-is-withdrawn",
        "workers/supervisor/leader.py",
        "Leader._withdraw",
        " - fleet.unreadable",
        "",
        (
            f"{_WORKERS}/test_leader.py::"
            "test_a_row_of_the_registry_that_cannot_be_read_is_left_as_it_is",
        ),
    ),
    Mutant(
        "policy-replaced-in-silence",
        "monitor/registry/fleet.py",
        "_policies",
        "if trouble:",
        "if False:",
        (f"{_REGISTRY}/test_fleet.py::test_a_policy_that_nobody_may_use_is_told_once",),
    ),
    Mutant(
        "lead-where-nothing-can-be-written",
        "workers/supervisor/process.py",
        "Supervisor._take_lead",
        "await connections.check_writes(self._live)",
        "",
        (
            f"{_WORKERS}/test_supervisor.py::test_while_redis_refuses_writes_nobody_takes_the_lead",
            f"{_FAULTS}/test_redis.py::test_out_of_memory_for_long",
        ),
    ),
    Mutant(
        "trouble-told-each-time",
        "workers/troubles.py",
        "Trouble.failed",
        "if kind not in self._failures:",
        "if True:",
        (f"{_FAULTS}/test_redis.py::test_out_of_memory_for_long",),
    ),
    Mutant(
        "cleartext-hidden-by-tls",
        "monitor/feeler/causes.py",
        "_asked_in_clear",
        """return f'"{NOT_IN_CLEAR}"' in seen.message and "cleartext" in seen.message""",
        "return False",
        (f"{_FAULTS}/test_logins.py::test_password_in_clear[tls]",),
    ),
    Mutant(
        "audit-not-of-commands",
        "monitor/terminal/audit.py",
        "audited",
        r"""sys.stderr.write(f"{moment} I feeler.audit action=audit {fields}\n")""",
        "pass",
        (
            "tests/test_cli.py::test_migrate_checks_and_works",
            "tests/test_cli.py::test_a_redis_is_adopted_by_its_holders_short_name_alone",
        ),
    ),
)
