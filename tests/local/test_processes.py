"""Children are kept alive, and end when asked, or when not asked any more."""

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager

import pytest

from monitor.local.machine import command_line
from monitor.local.processes import Child, start_command
from tests.waiting import eventually

BEAT = 60  # seconds; longer than any test


class Ear:
    """All that was said to stderr, however many times it is looked at."""

    def __init__(self, capfd):
        self.capfd, self.text = capfd, ""

    def heard(self, words):
        self.text += self.capfd.readouterr().err
        return self.text if words in self.text else ""


@pytest.fixture
def ear(capfd):
    return Ear(capfd)


@asynccontextmanager
async def kept(command, **options):
    child = Child("probe", lambda: start_command("probe", command, os.environ), **options)
    keeper = asyncio.create_task(child.keep())
    await eventually(lambda: child.process)
    yield child
    await child.stop()
    await asyncio.wait_for(keeper, 5)


async def test_a_killed_child_is_started_again():
    async with kept(f"sleep {BEAT}") as child:
        first = child.process.pid
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: child.process and child.process.pid != first)


async def test_one_that_keeps_dying_is_started_ever_more_slowly(ear):
    async with kept("sh -c 'sleep 0.2; false'"):
        await eventually(lambda: ear.heard("starts again in 0.8 s"), within=10)


async def test_one_that_cannot_be_started_is_tried_again_and_says_why(ear):
    def start():
        raise OSError(28, "No space left on device")

    child = Child("probe", start, last_line=lambda: "(see its log)")
    keeper = asyncio.create_task(child.keep())
    words = "could not start: No space left on device; starts again in 0.4 s (see its log)"
    await eventually(lambda: ear.heard(words))
    await child.stop()
    await keeper


async def test_stop_asks_first(tmp_path, ear):
    mark = tmp_path / "asked"
    asked = f"(pathlib.Path('{mark}').touch(), sys.exit())"
    program = f"import signal,pathlib,sys; signal.signal(15, lambda *_: {asked})"
    async with kept(
        f'{sys.executable} -c "{program}; print(1, flush=True); signal.pause()"'
    ) as child:
        await eventually(lambda: ear.heard("| 1\n"))
        process = child.process
    assert process.returncode == 0
    assert mark.exists()


async def test_the_output_bears_the_name_of_its_role(ear):
    async with kept(f"sh -c 'echo one; echo two >&2; sleep {BEAT}'"):
        await eventually(
            lambda: ear.heard("probe       | one\n") and ear.heard("probe       | two\n")
        )


async def test_a_child_that_will_not_stop_is_killed_with_its_children(ear):
    stubborn = f"sh -c 'trap \"\" TERM; sleep {BEAT} & echo $!; wait; sleep {BEAT}'"
    async with kept(stubborn, grace=0.3) as child:
        process, said = child.process, await eventually(lambda: ear.heard("\n"))
    assert process.returncode == -signal.SIGKILL
    await eventually(lambda: not command_line(int(said.split("|")[1].split()[0])))
