from monitor.core.cause import EVIDENCE, Cause, Evidence, cause_of_sqlstate
from monitor.core.observation import FAMILIES, GAUGES
from tests.core.making import seen


def test_every_cause_is_evidence_of_one_class_and_every_class_has_a_cause():
    assert set(EVIDENCE) == set(Cause)
    assert set(EVIDENCE.values()) == set(Evidence)
    assert all(seen(cause, 0).evidence is EVIDENCE[cause] for cause in Cause)


def test_whatever_the_server_says_it_is_alive():
    assert cause_of_sqlstate("57P03") is Cause.STARTING
    assert cause_of_sqlstate("53300") is Cause.REFUSING
    assert cause_of_sqlstate("28P01") is Cause.WRONG_PASSWORD
    assert cause_of_sqlstate("57014") is Cause.SERVER_ERROR
    codes = ("57P03", "53300", "3D000", "XX000", "")
    assert {EVIDENCE[cause_of_sqlstate(code)] for code in codes} == {Evidence.ALIVE}


def test_the_catalogue_names_each_gauge_once_under_a_family():
    assert len(set(FAMILIES)) == len(FAMILIES)
    assert {gauge.family for gauge in GAUGES.values()} == set(FAMILIES)
    assert all(name == gauge.name and gauge.meaning for name, gauge in GAUGES.items())
