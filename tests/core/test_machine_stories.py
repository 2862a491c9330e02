"""What happens to one database, told beat by beat. Times are seconds from the start of the
story.
"""

import itertools
from dataclasses import replace

import pytest

from monitor.core.cause import Cause
from monitor.core.machine import Opinion
from monitor.core.policy import Policy
from monitor.core.schedule import wants_login
from monitor.core.status import MAX_ROUNDS, Identity, State, Witness
from monitor.core.verdict import NAMED_BY
from tests.core.making import START, Story


def healthy() -> Story:
    story = Story()
    assert story.feel(Cause.OK, 0) == "first_ok"
    return story


def opinion(
    cause: Cause, at: float, *, worker: str = "w2", doubt: str = "1.1.2", sent: float | None = None
) -> Opinion:
    sent_at = START + (at if sent is None else sent)
    return Opinion(Identity.parse(doubt), worker, sent_at, START + at, cause)


def test_a_killed_database_is_unavailable_when_a_second_worker_finds_it_gone():
    story = healthy()
    assert story.feel(Cause.PORT_CLOSED, 5) == "doubt"
    assert [str(request.doubt) for request in story.requests] == ["1.1.2"]
    story.move("w2")
    assert (
        story.feel(Cause.PORT_CLOSED, 6.5) == "steady"
    )  # two workers and two rounds, but 2 s must pass
    assert story.feel(Cause.PORT_CLOSED, 7.5) == "confirm_absent"
    last = story.transitions[-1]
    assert last.observers == ("w1", "w2")
    assert [(one.worker, one.rounds, one.at - START) for one in last.evidence] == [
        ("w2", 2, 7.5),
        ("w1", 1, 5),
    ]
    assert (str(last.prev), str(last.identity)) == ("1.1.2", "1.2.1")
    assert story.status.doubt is None


def test_one_worker_alone_keeps_asking_and_never_decides():
    story = healthy()
    rules = {story.feel(Cause.PORT_CLOSED, at) for at in range(5, 65)}
    assert rules == {"doubt", "steady"}
    assert [request.at - START for request in story.requests] == [5, 15, 25, 35, 45, 55]
    assert {request.doubt for request in story.requests} == {story.status.identity}


def test_a_worker_goes_on_asking_after_the_clock_was_set_back():
    story = healthy()
    for at in (5, 6, 15):
        story.feel(Cause.PORT_CLOSED, at)
    for at in range(-3600, -3570):
        story.feel(Cause.PORT_CLOSED, at)
    assert [request.at - START for request in story.requests] == [5, 15, -3590, -3580]


def test_a_clock_set_back_during_a_feel_delays_nothing_by_the_length_of_the_step():
    story = healthy()
    assert (
        story.feel(Cause.HUNG, 7, sent=3605) == "doubt"
    )  # sent by the old clock, ended by the new one
    story.move("w2")
    assert {story.feel(Cause.HUNG, at, sent=at - 2) for at in range(9, 21, 2)} == {"steady"}
    assert len(story.requests) == 2
    story.move("w1")
    assert story.feel(Cause.HUNG, 22, sent=20) == "confirm_silent"


def test_nobody_is_asked_where_nobody_else_is():
    story = healthy()
    story.more = {"eligible": 1}
    assert {story.feel(Cause.PORT_CLOSED, at) for at in range(5, 65)} == {"doubt", "steady"}
    assert len(story.requests) == 1


def test_what_was_found_where_the_name_led_before_does_not_count():
    story = healthy()
    assert story.feel(Cause.PORT_CLOSED, 5, tried="10.0.0.1") == "doubt"
    assert story.feel(Cause.PORT_CLOSED, 6.5, tried="10.0.0.1") == "steady"
    story.move("w2")
    assert story.feel(Cause.PORT_CLOSED, 8, tried="10.0.0.2") == "steady"
    assert story.feel(Cause.PORT_CLOSED, 20, tried="10.0.0.2") == "steady", (
        "what one worker found at the new address"
    )
    story.move("w1")
    assert story.feel(Cause.PORT_CLOSED, 21, tried="10.0.0.2") == "confirm_absent"
    assert story.transitions[-1].observers == ("w1", "w2")


def test_observers_whose_resolvers_disagree_still_confirm():
    story = healthy()
    assert story.feel(Cause.PORT_CLOSED, 5, tried="10.0.0.1") == "doubt"
    story.move("w2")
    assert story.feel(Cause.PORT_CLOSED, 6, tried="52.1.1.1") == "steady"
    story.move("w1")
    assert story.feel(Cause.PORT_CLOSED, 7, tried="10.0.0.1") == "steady", (
        "2 s have to pass since the address came up"
    )
    assert story.feel(Cause.PORT_CLOSED, 8, tried="10.0.0.1") == "confirm_absent"


def test_a_name_that_leads_to_another_address_every_time_is_decided_all_the_same():
    story, rules = healthy(), []
    for at in range(5, 30):
        story.move(f"w{at % 2}")
        rules.append(story.feel(Cause.PORT_CLOSED, at, tried=f"10.0.0.{at}"))
    assert "confirm_absent" in rules


def test_a_frozen_server_takes_three_rounds_and_ten_seconds():
    story = healthy()
    assert story.feel(Cause.QUERY_TIMEOUT, 7, sent=5) == "doubt"
    story.move("w2")
    assert story.feel(Cause.HUNG, 11, sent=9) == "steady"
    assert story.feel(Cause.HUNG, 13, sent=11) == "steady"
    assert story.feel(Cause.HUNG, 14.999, sent=13) == "steady"
    assert story.feel(Cause.HUNG, 17, sent=15) == "confirm_silent"


def test_what_a_former_owner_found_counts_for_the_wait_of_the_rule_and_no_longer():
    for counts, taken_over in ((True, 25), (False, 26)):
        story = healthy()
        story.feel(Cause.HUNG, 7, sent=5)
        story.move("w2")
        story.feel(Cause.HUNG, 24, sent=22)
        rules = [story.feel(Cause.HUNG, taken_over + 2, sent=taken_over)]
        assert rules == (["confirm_silent"] if counts else ["steady"])
        assert len(story.requests) == (
            1 if counts else 2
        )  # nobody's finding helps: another worker is asked for


def test_a_mix_of_silent_and_absent_takes_the_longer_way():
    story = healthy()
    story.feel(Cause.HUNG, 7, sent=5)
    story.move("w2")
    assert [story.feel(Cause.PORT_CLOSED, at) for at in (8, 10, 12, 14, 15)] == ["steady"] * 4 + [
        "confirm_silent"
    ]


def test_an_absence_of_before_does_not_confirm_a_silence():
    story = healthy()
    assert story.feel(Cause.PORT_CLOSED, 5) == "doubt"
    story.move("w2")  # back after 7 s, and w2 is cut off
    rules = {story.feel(Cause.CONNECT_TIMEOUT, at, sent=at - 2) for at in range(8, 60, 3)}
    assert rules == {"steady"}


def test_a_silence_after_an_absence_asks_for_another_observer_at_once():
    story = healthy()
    story.feel(Cause.PORT_CLOSED, 5)
    story.move("w2")
    story.feel(Cause.CONNECT_TIMEOUT, 8, sent=6)
    assert [(request.worker, request.at - START) for request in story.requests] == [
        ("w1", 5),
        ("w2", 8),
    ]
    assert [request.third for request in story.requests] == [False, True]
    story.feel(Cause.CONNECT_TIMEOUT, 9, sent=8)
    assert len(story.requests) == 2, "once in a while is enough"


def test_whoever_asks_in_vain_for_a_third_worker_asks_less_often():
    story = healthy()
    story.feel(Cause.PORT_CLOSED, 5)
    story.move("w2")
    for at in range(8, 100, 3):
        story.feel(Cause.CONNECT_TIMEOUT, at, sent=at - 2)
    late = [request.at - START for request in story.requests if request.at - START > 36]
    pauses = [after - before for before, after in itertools.pairwise(late)]
    assert set(pauses) == {12.0}, "the next probe after ten seconds"


@pytest.mark.parametrize("first", [Cause.HUNG, Cause.PORT_CLOSED])
def test_what_a_worker_found_last_decides_whether_a_third_one_is_needed(first):
    story = healthy()
    story.feel(first, 5)
    story.feel(Cause.PORT_CLOSED, 6)
    story.move("w2").feel(Cause.CONNECT_TIMEOUT, 9, sent=7)
    assert story.requests[-1].third


def test_a_third_observer_decides_between_an_absence_and_a_silence():
    for found, rules in (
        (Cause.PORT_CLOSED, ["steady", "steady", "confirm_silent"]),
        (Cause.HUNG, ["steady", "steady", "confirm_silent"]),
        (Cause.OK, ["false_alarm", "steady", "steady"]),
    ):
        story = healthy()
        story.feel(Cause.PORT_CLOSED, 5)
        story.move("w2").feel(Cause.CONNECT_TIMEOUT, 8, sent=6)
        story.move("w3")
        assert [story.feel(found, at) for at in (10, 12, 15)] == rules
        assert len(story.requests) == 2, "what it finds helps"


def test_a_database_only_one_worker_cannot_reach_is_available_and_remembers_who():
    story = healthy()
    story.feel(Cause.UNREACHABLE, 5)
    story.move("w4")
    assert story.feel(Cause.OK, 7) == "false_alarm"
    assert story.status.unreachable_from == ("w1",)
    assert story.feel(Cause.OK, 606) == "steady"
    assert story.status.unreachable_from == ("w1",)
    story.feel(Cause.OK, 607)
    assert story.status.unreachable_from == ()


def test_a_doubter_that_reaches_it_again_is_none():
    story = healthy()
    story.feel(Cause.UNREACHABLE, 5)
    story.move("w4").feel(Cause.OK, 7)
    story.move("w1")
    assert story.feel(Cause.OK, 9) == "steady"
    assert (story.status.unreachable_from, story.status.unreachable_at) == ((), 0.0)


def test_a_doubter_is_one_until_it_has_reached_it_or_nobody_can():
    story = healthy()
    story.feel(Cause.UNREACHABLE, 5)
    story.move("w4").feel(Cause.OK, 7)
    story.move("w1").feel(Cause.PORT_CLOSED, 9)
    assert story.status.unreachable_from == ("w1",)
    story.move("w4").feel(Cause.PORT_CLOSED, 12)
    assert (story.status.state, story.status.unreachable_from) == (State.UNAVAILABLE, ())


def test_the_newest_two_doubters_are_kept_and_nobody_who_reached_it():
    story = healthy()
    for number in (1, 2, 3, 4):
        story.move(f"w{number}").feel(Cause.UNREACHABLE, 5 + number / 10)
    story.move("w5").more = {"opinions": (opinion(Cause.OK, 6, worker="w4", doubt="1.2.1"),)}
    assert story.feel(Cause.OK, 7) == "false_alarm"
    assert story.status.unreachable_from == ("w3", "w2")


def test_a_hiccup_names_no_doubter():
    story = healthy()
    story.feel(Cause.CONNECT_TIMEOUT, 7, sent=5)
    assert story.feel(Cause.OK, 8) == "false_alarm"
    assert story.status.unreachable_from == ()


def test_an_ok_sent_before_the_doubt_does_not_end_it():
    story = healthy()
    story.feel(Cause.PORT_CLOSED, 5)
    story.move("w2")
    assert story.feel(Cause.OK, 5.2, sent=4.9) == "steady"
    assert story.feel(Cause.OK, 6) == "false_alarm"


def test_a_newcomer_with_a_wrong_password_is_told_so_not_called_new():
    story = Story()
    assert [story.feel(Cause.LOCKED_OUT, at) for at in (0, 1, 2)] == [
        "steady",
        "answered",
        "steady",
    ]
    assert story.status.state is State.LOCKED_OUT
    assert story.feel(Cause.OK, 3) == "reopened"
    assert [str(event.identity) for event in story.transitions] == ["1.1.1", "1.1.2"]


def test_a_crash_and_its_recovery_are_starting_not_down():
    story = healthy()
    assert story.feel(Cause.RESET, 5) == "doubt"
    assert story.feel(Cause.STARTING, 6) == "steady"
    assert story.status.doubt.witnesses == ()
    assert story.feel(Cause.STARTING, 7) == "answered"
    assert story.status.state is State.STARTING
    assert story.feel(Cause.STARTING, 8) == "steady"
    assert story.feel(Cause.OK, 9) == "reopened"
    assert [event.rule for event in story.transitions] == [
        "first_ok",
        "doubt",
        "answered",
        "reopened",
    ]


def test_the_quick_rule_counts_nothing_that_was_silent():
    story = healthy()
    assert story.feel(Cause.CONNECT_TIMEOUT, 7, sent=5) == "doubt"
    assert story.feel(Cause.PORT_CLOSED, 7.02) == "steady"
    story.move("w2")
    assert [story.feel(Cause.PORT_CLOSED, at) for at in (7.04, 8, 9.019)] == ["steady"] * 3
    assert story.feel(Cause.PORT_CLOSED, 9.02) == "confirm_absent"


def test_a_silence_between_starts_the_quick_rule_anew():
    story = healthy()
    story.feel(Cause.PORT_CLOSED, 5)
    story.move("w2")
    assert story.feel(Cause.HUNG, 6.9) == "steady"
    assert [story.feel(Cause.PORT_CLOSED, at) for at in (7, 8, 8.999)] == ["steady"] * 3
    assert story.feel(Cause.PORT_CLOSED, 9) == "confirm_absent"


def test_the_lone_worker_counts_silences_apart_too():
    story = Story(more={"eligible": 1, "alone_since": START - 100})
    story.feel(Cause.OK, 0)
    story.feel(Cause.HUNG, 7, sent=5)
    assert [story.feel(Cause.PORT_CLOSED, at) for at in (7.1, 8, 9.099, 9.1)] == ["steady"] * 3 + [
        "single_observer"
    ]


def test_what_was_found_at_an_old_address_confirms_nothing():
    story = healthy()
    story.more = {"revision": 3}
    story.feel(Cause.PORT_CLOSED, 5)
    story.move("w2").more = {"revision": 4}
    assert [story.feel(Cause.PORT_CLOSED, at) for at in (6, 7, 8, 9)] == ["steady"] * 4
    story.move("w3")
    assert story.feel(Cause.PORT_CLOSED, 10) == "confirm_absent"
    assert story.transitions[-1].observers == ("w2", "w3")


def test_the_first_finding_at_a_new_address_dates_the_doubt_anew():
    story = healthy()
    story.more = {"revision": 3}
    story.feel(Cause.HUNG, 7, sent=5)
    story.more = {"revision": 4}
    story.feel(Cause.HUNG, 12, sent=11)
    story.move("w2")
    assert [story.feel(Cause.HUNG, at) for at in (14, 17, 20.9)] == ["steady"] * 3
    assert story.feel(Cause.HUNG, 21) == "confirm_silent"


def test_three_errors_of_the_server_are_refusing_and_two_are_nothing():
    story = healthy()
    assert [story.feel(Cause.SERVER_ERROR, at) for at in (5, 6)] == ["steady"] * 2
    assert story.feel(Cause.OK, 7) == "steady"
    assert [story.feel(Cause.SERVER_ERROR, at) for at in (8, 9, 10)] == [
        "steady",
        "steady",
        "answered",
    ]
    assert story.status.state is State.REFUSING
    assert story.transitions[-1].evidence[0].cause is Cause.SERVER_ERROR
    assert story.feel(Cause.OK, 11) == "reopened"


def test_one_answer_of_the_server_restarts_the_count():
    story = healthy()
    story.feel(Cause.PORT_CLOSED, 5)
    story.feel(Cause.SERVER_ERROR, 6)
    story.move("w2")
    assert [story.feel(Cause.PORT_CLOSED, at) for at in (8, 9, 10)] == [
        "steady"
    ] * 3  # what w1 found was before it spoke
    story.move("w3")
    assert story.feel(Cause.PORT_CLOSED, 11) == "confirm_absent"
    assert story.transitions[-1].observers == ("w2", "w3")


def test_the_newest_of_two_answers_names_the_state():
    story = healthy()
    assert [story.feel(cause, at) for at, cause in enumerate([Cause.STARTING, Cause.REFUSING], 5)][
        1
    ] == "answered"
    assert story.status.state is State.REFUSING


@pytest.mark.parametrize("between", [Cause.SERVER_ERROR, Cause.OK])
def test_anything_between_two_answers_starts_over(between):
    story = healthy()
    causes = [Cause.STARTING, between, Cause.STARTING]
    assert [story.feel(cause, at) for at, cause in enumerate(causes, 5)] == ["steady"] * 3
    assert story.feel(Cause.STARTING, 9) == "answered"


@pytest.mark.parametrize("cause", [Cause.LOGIN_FAILING, Cause.LOCKED_OUT])
def test_the_kept_session_takes_back_nothing_that_a_login_was_told(cause):
    story = healthy()
    assert story.feel(cause, 5) == "steady"
    assert wants_login(story.status)
    assert [story.feel(Cause.OK, at, fresh=False) for at in (6, 7)] == ["steady"] * 2
    assert wants_login(story.status)
    assert story.feel(cause, 8) == "answered"
    assert story.status.state is NAMED_BY[cause]


def test_a_login_takes_back_what_a_login_was_told():
    story = healthy()
    story.feel(Cause.LOGIN_FAILING, 5)
    assert story.feel(Cause.OK, 6) == "steady"
    assert not wants_login(story.status)
    assert story.feel(Cause.LOGIN_FAILING, 60) == "steady"


def test_an_outage_of_ours_between_two_answers_does_not():
    story = healthy()
    causes = [Cause.STARTING, Cause.LATE_LOOP, Cause.STARTING]
    assert [story.feel(cause, at) for at, cause in enumerate(causes, 5)] == [
        "steady",
        "steady",
        "answered",
    ]


def test_one_state_hears_itself_without_wavering():
    story = healthy()
    story.feel(Cause.STARTING, 5)
    story.feel(Cause.STARTING, 6)
    story.feel(Cause.LOCKED_OUT, 7)
    assert story.feel(Cause.STARTING, 8) == "steady"
    assert story.status.alive is None
    assert story.feel(Cause.LOCKED_OUT, 9) == "steady"
    assert story.feel(Cause.LOGIN_FAILING, 10) == "answered"
    assert story.status.state is State.REFUSING


def dead() -> Story:
    story = healthy()
    story.feel(Cause.PORT_CLOSED, 5)
    story.move("w2").feel(Cause.PORT_CLOSED, 8)
    assert story.status.state is State.UNAVAILABLE
    return story


def test_two_oks_two_seconds_apart_are_a_recovery():
    story = dead()
    assert [story.feel(Cause.OK, at) for at in (20, 21, 21.999)] == ["steady"] * 3
    assert story.feel(Cause.OK, 22) == "recovered"


@pytest.mark.parametrize(
    "between", [Cause.PORT_CLOSED, Cause.HUNG, Cause.STARTING, Cause.SERVER_ERROR]
)
def test_anything_between_two_oks_is_no_recovery(between):
    story = dead()
    story.feel(Cause.OK, 20)
    story.feel(between, 21)
    assert (story.status.ok_since, story.status.ok_rounds) == (None, 0)
    assert story.feel(Cause.OK, 23) == "steady"
    assert story.feel(Cause.OK, 25) == "recovered"


def test_the_only_worker_decides_after_half_a_minute_alone():
    story = healthy()
    story.feel(Cause.PORT_CLOSED, 5)
    story.more = {"eligible": 1, "alone_since": START + 4}
    assert {story.feel(Cause.PORT_CLOSED, at) for at in range(6, 34)} == {"steady"}
    story.more["canaries_green"] = False
    assert story.feel(Cause.PORT_CLOSED, 34) == "steady"
    story.more["canaries_green"] = True
    assert story.feel(Cause.PORT_CLOSED, 35) == "single_observer"
    assert story.transitions[-1].observers == ("w1",)


def test_the_only_worker_is_as_patient_as_two_would_be():
    story = Story(more={"eligible": 1, "alone_since": START - 100})
    story.feel(Cause.OK, 0)
    assert story.feel(Cause.HUNG, 5) == "doubt"
    assert [story.feel(Cause.HUNG, at) for at in (7, 14.9, 15)] == [
        "steady",
        "steady",
        "single_observer",
    ]
    story.feel(Cause.OK, 20)
    story.feel(Cause.OK, 22)
    assert story.feel(Cause.PORT_CLOSED, 25) == "doubt"
    assert [story.feel(Cause.PORT_CLOSED, at) for at in (26.9, 27)] == ["steady", "single_observer"]


def asked(*opinions: Opinion) -> Story:
    story = healthy()
    story.feel(Cause.PORT_CLOSED, 5)
    story.more = {"opinions": opinions}
    return story


def test_a_peers_opinion_confirms_without_a_move():
    story = asked(opinion(Cause.RESET, 6))
    assert story.feel(Cause.PORT_CLOSED, 7) == "confirm_absent"
    assert story.transitions[-1].observers == ("w1", "w2")


@pytest.mark.parametrize(
    "useless",
    [
        opinion(Cause.RESET, 6, doubt="1.1.1"),  # of another doubt
        opinion(Cause.RESET, 6, sent=4.9),  # sent before the doubt
        opinion(Cause.RESET, 8),  # the owner's probe was sent before it came
        opinion(Cause.RESET, 6, worker="w1"),  # its own
        opinion(Cause.LATE_LOOP, 6),
        opinion(Cause.OK, 6),
        opinion(Cause.SERVER_ERROR, 6),
    ],
)
def test_some_opinions_confirm_nothing(useless):
    story = asked(useless)
    assert story.feel(Cause.PORT_CLOSED, 8.5, sent=7.5) == "steady"


def test_a_peers_opinion_grows_old_sooner_than_what_a_former_owner_found():
    assert asked(opinion(Cause.RESET, 6)).feel(Cause.PORT_CLOSED, 10) == "confirm_absent"
    assert asked(opinion(Cause.RESET, 6)).feel(Cause.PORT_CLOSED, 10.001) == "steady"


def test_whoever_reached_it_since_the_doubt_stands_against_all_others():
    negative, positive = opinion(Cause.RESET, 7), opinion(Cause.OK, 6, worker="w3")
    assert asked(negative, positive).feel(Cause.PORT_CLOSED, 8) == "steady"
    assert (
        asked(negative, positive, opinion(Cause.RESET, 7, worker="w3")).feel(Cause.PORT_CLOSED, 8)
        == "confirm_absent"
    )


@pytest.mark.parametrize(
    ("kind", "rule"), [(Cause.RESET, "confirm_absent"), (Cause.HUNG, "confirm_silent")]
)
def test_what_a_newer_version_found_neither_proves_nor_hinders(kind, rule):
    strange = Witness("w9", 1, START + 5.2, START + 5.5, Cause("adrift"))
    for known in (True, False):
        story = healthy()
        story.feel(kind, 5)
        doubt = story.status.doubt
        witnesses = (*(doubt.witnesses if known else ()), strange)
        story.status = replace(story.status, doubt=replace(doubt, witnesses=witnesses))
        story.move("w2")
        assert (rule in [story.feel(kind, at) for at in (13, 14.5, 16)]) is known


def test_a_peers_ok_alone_makes_nothing_available():
    story = asked(opinion(Cause.OK, 6))
    assert [story.feel(Cause.PORT_CLOSED, at) for at in (7, 8)] == ["steady"] * 2
    story.move("w2")
    assert story.feel(Cause.OK, 9) == "false_alarm"
    assert story.status.unreachable_from == ("w1",)


def test_one_answer_of_the_server_and_a_peers_agreement_name_the_state():
    assert asked(opinion(Cause.STARTING, 6)).feel(Cause.STARTING, 7) == "answered"
    assert asked(opinion(Cause.LOCKED_OUT, 6)).feel(Cause.STARTING, 7) == "steady"
    assert (
        asked(opinion(Cause.STARTING, 6)).feel(Cause.STARTING, 11) == "steady"
    )  # too long ago to agree


def test_only_the_newest_four_witnesses_are_kept():
    story = healthy()
    story.feel(Cause.HUNG, 5)
    for number in range(2, 7):
        story.move(f"w{number}").feel(Cause.HUNG, 5 + number / 10)
    assert [witness.worker for witness in story.status.doubt.witnesses] == ["w3", "w4", "w5", "w6"]


def test_time_is_exact_to_the_millisecond():
    for late in range(0, 1000, 37):
        story = healthy()
        began = 5 + late / 1000
        story.feel(Cause.PORT_CLOSED, began)
        story.move("w2")
        assert story.feel(Cause.PORT_CLOSED, round(began + 1.999, 3)) == "steady"
        assert story.feel(Cause.PORT_CLOSED, round(began + 2, 3)) == "confirm_absent"


def test_a_clock_may_stand_still_but_what_is_older_is_not_heard():
    story = healthy()
    story.feel(Cause.STARTING, 5)
    assert [
        story.feel(cause, at) for cause, at in ((Cause.STARTING, 6), (Cause.OK, 5.9), (Cause.OK, 6))
    ] == [
        "answered",
        "steady",
        "reopened",
    ]


def test_an_ok_older_than_the_first_of_a_recovery_does_not_count():
    story = dead()
    story.feel(Cause.OK, 20)
    before = story.status
    story.feel(Cause.OK, 19)
    assert story.status is before


def test_an_ok_older_than_its_own_negative_ends_no_doubt():
    story = healthy()
    story.feel(Cause.HUNG, 7, sent=5)
    story.feel(Cause.HUNG, 9.5, sent=7.5)
    assert story.feel(Cause.OK, 9, sent=8) == "steady"
    assert story.feel(Cause.OK, 10) == "false_alarm"
    assert story.transitions[-1].evidence[0].rounds == 1


def test_an_ok_need_not_be_newer_than_the_negatives_of_others():
    story = healthy()
    story.feel(Cause.HUNG, 7, sent=5)
    story.feel(Cause.HUNG, 11, sent=9)
    story.move("w2")
    assert story.feel(Cause.OK, 9.3, sent=8.9) == "false_alarm"


def test_after_an_answer_of_the_server_the_time_runs_anew_too():
    story = healthy()
    story.feel(Cause.PORT_CLOSED, 5)
    story.feel(Cause.SERVER_ERROR, 6)
    story.feel(Cause.PORT_CLOSED, 8)
    story.move("w2")
    assert [story.feel(Cause.PORT_CLOSED, at) for at in (9, 9.999, 10)] == [
        "steady",
        "steady",
        "confirm_absent",
    ]


def test_rounds_are_counted_to_a_limit():
    story = healthy()
    story.feel(Cause.HUNG, 5)
    doubt = story.status.doubt
    many = replace(doubt.witnesses[0], rounds=MAX_ROUNDS - 1)
    story.status = replace(story.status, doubt=replace(doubt, witnesses=(many,)))
    for at in (6, 7):
        story.feel(Cause.HUNG, at)
        assert story.status.doubt.witnesses[0].rounds == MAX_ROUNDS


def test_a_recovery_takes_as_many_rounds_as_the_policy_says():
    story = dead()
    story.more = {"policy": Policy(recovery_rounds=3)}
    assert [story.feel(Cause.OK, at) for at in (20, 30, 31)] == ["steady", "steady", "recovered"]


def test_being_alone_once_is_not_being_alone():
    story = healthy()
    story.more = {"eligible": 2, "alone_since": START}
    assert {story.feel(Cause.PORT_CLOSED, at) for at in range(40, 60)} == {"doubt", "steady"}


def asked_of_a_patient_policy(*opinions: Opinion) -> Story:
    """Two rounds of the owner, so two of the peer are wanted."""
    story = healthy()
    story.feel(Cause.HUNG, 5)
    story.more = {"opinions": opinions, "policy": Policy(silent_rounds=4)}
    return story


def test_each_answer_of_a_peer_is_one_round():
    first, second = opinion(Cause.HUNG, 13.5), opinion(Cause.HUNG, 14.5)
    assert asked_of_a_patient_policy(first, second).feel(Cause.HUNG, 16) == "confirm_silent"
    assert asked_of_a_patient_policy(second, second).feel(Cause.HUNG, 16) == "steady"
    reached = opinion(Cause.OK, 14)
    assert asked_of_a_patient_policy(first, reached, second).feel(Cause.HUNG, 16) == "steady"


def test_a_peers_own_fault_does_not_hide_what_it_said_before():
    assert (
        asked(opinion(Cause.RESET, 6), opinion(Cause.DESCRIPTORS, 6.5)).feel(Cause.PORT_CLOSED, 7)
        == "confirm_absent"
    )


def test_a_peers_ok_does_not_keep_the_owner_from_asking_again():
    story = asked(opinion(Cause.OK, 14))
    story.feel(Cause.PORT_CLOSED, 15)
    assert len(story.requests) == 2
    fresh = asked(opinion(Cause.HUNG, 14))
    fresh.feel(Cause.PORT_CLOSED, 15, sent=14.5)
    assert len(fresh.requests) == 1
