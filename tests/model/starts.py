"""Where searches start: the beginning, and quiet middles that are many steps away from it.

Only tests/model may import this.
"""

from monitor.core.status import Epoch, Identity
from tests.model import protocol
from tests.model.repairs import Without
from tests.model.world import NEW, Event, Leader, Name, Postgres, Redis, Side, Worker, World


def fresh(without: Without = frozenset()) -> World:
    """Return the beginning: an empty Redis, no leader."""
    return World()


def running(without: Without = frozenset(), *, others: int = 1) -> World:
    """Return the quiet middle: L0 leads and has opened, W0 owns the database, in state new."""
    name, epoch = protocol.named(Name(1, Epoch(1, 1)), without), Epoch(1, 2)
    other = Worker(generation=name, opened=name.epoch, term=1)
    redis = Redis(generation=name, others=name, term=1, signed=True, grouped=True)
    redis = redis._replace(owner=0, epoch=epoch, proven=True, bound=0, status=NEW)
    return World(
        redis=redis._replace(announced=tuple(range(1 + others))),
        postgres=Postgres(holder=0, term=1),
        workers=(other._replace(owns=True, epoch=epoch, accepted=NEW), *[other] * others),
        leaders=(Leader(term=1, counter=2, met=True), Leader()),
    )


def crowded(without: Without = frozenset()) -> World:
    """Return the quiet middle with three workers."""
    return running(without, others=2)


def joining(without: Without = frozenset()) -> World:
    """Return the quiet middle after W1 got the database, of which the replica knows nothing."""
    before, epoch = running(without), Epoch(1, 3)
    w0, w1 = before.workers
    return before._replace(
        redis=before.redis._replace(owner=1, epoch=epoch, bound=1),
        replica=(before.redis._replace(announced=(0,)),),
        workers=(w0._replace(owns=False), w1._replace(owns=True, epoch=epoch, accepted=NEW)),
        leaders=(before.leaders[0]._replace(counter=3), Leader()),
        past=before.past._replace(faults=("failover",)),
    )


def relieved(without: Without = frozenset()) -> World:
    """Return the middle of `joining` after L0 gave the lead up to L1; the replica knows that."""
    world = joining(without)
    assert world.replica
    replica, w1 = world.replica[0]._replace(complete=1), world.workers[1]
    return world._replace(
        redis=world.redis._replace(complete=1, term=2, epoch=Epoch(2, 1)),
        replica=(replica,),
        postgres=Postgres(holder=1, term=2),
        workers=(world.workers[0], w1._replace(epoch=Epoch(2, 1), term=2)),
        leaders=(Leader(), Leader(term=2, counter=1, met=True)),
    )


def opening(without: Without = frozenset()) -> World:
    """Return the middle of the first opening: L0 has begun, and assigned W0 in what is closed."""
    name, epoch = Name(1, Epoch(1, 1)), Epoch(1, 2)
    return World(
        redis=Redis(opening=name, term=1, owner=0, epoch=epoch, status=NEW, announced=(0, 1)),
        postgres=Postgres(holder=0, term=1),
        leaders=(Leader(term=1, counter=2, opening=name, confirmed=True, reissued=True), Leader()),
    )


def deposed(without: Without = frozenset()) -> World:
    """Return the middle after L1 gave the database to W1, and neither L0 nor W0 has noticed."""
    world, epoch = running(without), Epoch(2, 1)
    w0, w1 = world.workers
    return world._replace(
        redis=world.redis._replace(term=2, owner=1, epoch=epoch, bound=1),
        postgres=Postgres(holder=1, term=2),
        workers=(w0, w1._replace(owns=True, epoch=epoch, term=2, accepted=NEW)),
        leaders=(world.leaders[0], Leader(term=2, counter=1, met=True)),
        past=world.past._replace(highest=epoch),
    )


def outlived(without: Without = frozenset()) -> World:
    """Return the middle after Redis forgot all and Postgres was set back; W1 knows better."""
    world, lost = running(without), Event(Identity(Epoch(5, 2), 1), NEW.identity, 1)
    w1 = Worker(
        epoch=Epoch(5, 2), term=5, opened=Epoch(5, 1), owns=True, accepted=lost, retained=(lost,)
    )
    past = world.past._replace(
        accepted=(lost,), excused=(lost.content,), highest=Epoch(1, 2), feels=1
    )
    return world._replace(workers=(world.workers[0], w1), past=past)


def parted(without: Without = frozenset()) -> World:
    """Return the middle after a failover that all have noticed; the first master still answers."""
    before = running(without)
    name, epoch = protocol.named(Name(2, Epoch(1, 3)), without), Epoch(1, 4)
    w0, w1 = (w._replace(generation=name, opened=name.epoch) for w in before.workers)
    return before._replace(
        redis=before.redis._replace(instance=2, generation=name, others=name, epoch=epoch),
        old=(Side(before.redis, (), Epoch(1, 2)),),
        workers=(w0._replace(epoch=epoch), w1),
        leaders=(before.leaders[0]._replace(counter=4), Leader()),
        past=before.past._replace(highest=epoch, faults=("left_worker",)),
    )
