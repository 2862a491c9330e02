"""The model and the product speak of the same steps by the same names."""

from inspect import isfunction
from pathlib import Path

from monitor.core.custody import Custody
from monitor.core.holding import Holding
from monitor.live import assignments, durability, generation, journal, observations
from tests.model import protocol
from workers.supervisor.historian import Historian
from workers.worker.recorder import Recorder

SCRIPTS = {path.stem for path in Path(observations.__file__).with_name("scripts").glob("*.lua")}
NOT_MODELLED = {"prelude", "publish", "reindex", "claim"}  # shared code, hints
NOT_MODELLED |= {"lead", "take_over"}  # what a restore does as well, and a person's word

# Each step of custody, and the step of the model that it is, or that it is a part of.
CUSTODY = {
    "observe": "observe",
    "beat": "record",
    "apply_reply": "apply_reply",
    "accept": "apply_reply",
    "learn": "learn",
    "release": "learn",  # the hash names another owner
    "follow": "close",
    "restorable": "restore",
    "enter": "enter",
    "replayed": "replay",
    "repeat": "repeat",
    "forget_durable": "forget",
}
NO_STEP = {"must_learn"}  # a question
# anybody may pause before `learn`; what lasts minutes is not modelled
NO_STEP |= {"stop", "expire"}


def test_every_script_is_a_step_of_the_model() -> None:
    steps = {"assign", "unassign", "record", "restore", "open", "close", "replay", "trim"}
    assert steps == SCRIPTS - NOT_MODELLED
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
        "drain": Historian.drain,
    }
    assert set(product) <= set(protocol.__all__)
    assert all(name in step.__name__ for name, step in product.items())


def test_every_step_of_custody_is_a_step_of_the_model() -> None:
    parts = vars(Custody) | vars(Holding)
    steps = {name for name, part in parts.items() if isfunction(part) and name[0] != "_"}
    assert steps - NO_STEP == set(CUSTODY)
    assert set(CUSTODY.values()) <= set(protocol.__all__)
