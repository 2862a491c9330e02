"""The model and the product speak of the same steps by the same names."""

from pathlib import Path

from monitor.live import assignments, durability, generation, journal, observations
from tests.model import protocol
from workers.supervisor.historian import Historian
from workers.worker.ledger import Ledger
from workers.worker.recorder import Recorder

SCRIPTS = {path.stem for path in Path(observations.__file__).with_name("scripts").glob("*.lua")}
NOT_MODELLED = {"prelude", "publish", "reindex", "claim"}  # shared code, hints
NOT_MODELLED |= {
    "lead",
    "take_over",
}  # what a restore does as well to term and name, a person's word


def test_every_script_is_a_step_of_the_model() -> None:
    assert {
        "assign",
        "unassign",
        "record",
        "restore",
        "open",
        "close",
        "replay",
        "trim",
    } == SCRIPTS - NOT_MODELLED
    assert set(protocol.__all__) >= SCRIPTS - NOT_MODELLED


def test_every_step_of_the_model_is_a_function_of_the_product() -> None:
    product = {
        "assign": assignments.assign,
        "record": observations.record,
        "restore": generation.restore,
        "open": generation.open_generation,
        "close": generation.close_generation,
        "replay": durability.replay,
        "trim": journal.trim,
        "unassign": assignments.unassign,
        "mark_durable": durability.mark_durable,
        "ack": journal.ack,
        "forget": Recorder.forget_durable,
        "repeat": Recorder._repeat,
        "drain": Historian.drain,
        "learn": Ledger.learn,
    }
    assert set(product) <= set(protocol.__all__)
    assert all(name in step.__name__ for name, step in product.items())
