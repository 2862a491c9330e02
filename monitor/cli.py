"""`feeler`: the door for people. stdout is data, stderr is everything else. Nothing imports this.

Exit codes: 0 ok, 1 error, 2 usage, 3 condition false, 4 stale or unknown.
Imports stand inside the commands so that `feeler --help` costs no more than typer does.
"""

import os
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from monitor.core.cause import Cause
from monitor.core.database import parse_address
from monitor.core.errors import FeelerError
from monitor.core.status import State
from monitor.registration.given import parse_label
from monitor.terminal.arguments import (
    CONDITION_FALSE,
    STALE_OR_UNKNOWN,
    USAGE,
    Commands,
    GetFormat,
    NameArgument,
    Output,
    Role,
    check_not_empty,
    form_of,
    given_url,
    say,
)

if TYPE_CHECKING:
    from monitor.config import Settings
    from monitor.shapes import LastObservationShape, RegisteredShape
    from monitor.terminal.client import Client

OPTIONS: dict[str, Any] = {
    "no_args_is_help": True,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
}
app = typer.Typer(cls=Commands, help="The state of every Postgres database you own.", **OPTIONS)
db = typer.Typer(help="The databases feeler watches.", **OPTIONS)
app.add_typer(db, name="db")
journal = typer.Typer(help="What a version of feeler could not read of the journal.", **OPTIONS)
app.add_typer(journal, name="journal")
redis = typer.Typer(help="The Redis that holds the fleet.", **OPTIONS)
app.add_typer(redis, name="redis")


@app.command()
def up(
    databases: Annotated[list[str] | None, typer.Argument(metavar="NAME=URL|@FILE...")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
    port: Annotated[int | None, typer.Option(min=1, max=65_535, help="Port of the web.")] = None,
) -> None:
    """Run everything on this machine, stores included, and watch these databases."""
    from monitor.local.up import up as start

    raise typer.Exit(start(os.environ, databases or (), workers, port))


@app.command()
def run(role: Role) -> None:
    """Run one role (for the Procfile, systemd, Kubernetes).

    The environment says how: DATABASE_URL, REDIS_URL, FEELER_SECRET_KEYS, and what else README
    lists, as FEELER_HISTORY_DAYS for the supervisor: days that transitions are kept, 400 by
    default, 0 for ever.
    """
    if role == "web":
        from monitor.web.app import serve

        serve(_settings(stores=True))
    else:
        os.execv(sys.executable, [sys.executable, "-m", f"workers.{role}.process"])  # noqa: S606


@app.command()
def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Only say what is pending; exit 3 if anything is.")
    ] = False,
) -> None:
    """Bring the registry's tables up to date."""
    from monitor.terminal import migration

    settings = _settings(stores=True)
    revisions = migration.pending(settings)
    for revision in revisions:
        typer.echo(revision)
    if check:
        raise typer.Exit(CONDITION_FALSE if revisions else 0)
    migration.apply(settings, revisions)
    say(f"{len(revisions)} migrations applied" if revisions else "nothing to do")
    for line in migration.notices(settings, revisions):
        say(line)


@db.command("add")
def db_add(
    name: NameArgument,
    url: Annotated[str, typer.Argument(metavar="URL|-|env:NAME", help="`-` reads it from stdin.")],
    label: Annotated[list[str] | None, typer.Option("-l", "--label", metavar="KEY=VALUE")] = None,
    policy: Annotated[str, typer.Option()] = "default",
    zone: Annotated[
        str, typer.Option(help="Only workers of this zone watch it, where there are any.")
    ] = "",
) -> None:
    """Register a database, and say what the first look at it finds."""
    labels = dict(map(parse_label, label or ()))
    with _client() as client:
        added = client.add(name, given_url(url), labels=labels, policy=policy, zone=zone)
        _show(client, added)
    needed = "databases watched there + 2 for each worker"
    say(f"a CONNECTION LIMIT of its role must hold, per server: {needed}")


@db.command("set-url")
def db_set_url(
    name: NameArgument,
    url: Annotated[str, typer.Argument(metavar="URL|-|env:NAME", help="`-` reads it from stdin.")],
) -> None:
    """Change the address of a database, or its role and password; say what the first look finds."""
    with _client() as client:
        _show(client, client.change_url(name, given_url(url)))


@db.command("list")
def db_list(output: Output = None) -> None:
    """List the registered databases."""
    with _client() as client:
        registered = list(client.databases())
    if (form := form_of(output)) == "table":
        from monitor.terminal import tables

        tables.databases(registered)
    else:
        from monitor.terminal import pipes

        pipes.databases(registered, form)


@db.command("remove")
def db_remove(
    name: NameArgument, yes: Annotated[bool, typer.Option("--yes", help="Do it.")] = False
) -> None:
    """Retire a database: watching ends, its history stays and goes on when it is added again."""
    if not yes:
        say(f"feeler: this ends the watching of {name}; add --yes to do it")
        raise typer.Exit(USAGE)
    with _client() as client:
        client.remove(name)
    say(f"{name} is retired")


@redis.command("adopt")
def redis_adopt(
    holder: Annotated[
        str, typer.Argument(metavar="HOLDER", help="Short name of the registry that holds it.")
    ] = "",
) -> None:
    """Give the Redis to the registry at DATABASE_URL, where another registry holds it, for good."""
    from monitor.terminal import redis_admin

    say(redis_admin.adopt(_settings(stores=True), holder))


@app.command()
def get(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", callback=check_not_empty)
    ] = None,
    state: Annotated[list[State] | None, typer.Option(help="May be given more than once.")] = None,
    output: Annotated[
        GetFormat | None,
        typer.Option("-o", "--output", help="Default: table on a terminal, else tsv; wide: why."),
    ] = None,
) -> None:
    """Show the last observations: all, those named, those in a state.

    With names and states the exit code answers: 0 all of them are, 3 some are not, 4 stale or
    unknown. With states alone: 0 there are such, 3 there are none.
    """
    from monitor.terminal import rows

    wanted = list(dict.fromkeys(names or ()))
    with _client() as client:
        pages = list(client.observations(wanted, [one.value for one in state or ()]))
        now = client.now
    answers = [answer for page in pages for answer in page["data"]]
    missing = [name for page in pages for name in page["missing"]]
    unreadable = {name for page in pages for name in page.get("unreadable", ())}
    for line in rows.warnings(answers, pages[0]["meta"].get("trouble", [])):
        say(f"feeler: {line}")
    _print_answers(answers, missing, output or form_of(None), now)
    _say_unanswered(missing, unreadable)
    stale = wanted and not all(map(_fresh, answers))
    if missing or unreadable or stale:
        raise typer.Exit(STALE_OR_UNKNOWN)
    if state and len(answers) < max(1, len(wanted)):
        raise typer.Exit(CONDITION_FALSE)


def _print_answers(
    answers: Sequence["LastObservationShape"], missing: Sequence[str], form: GetFormat, now: float
) -> None:
    if form in ("table", "wide"):
        from monitor.terminal import tables

        tables.observations(answers, now, wide=form == "wide")
    else:
        from monitor.terminal import pipes

        pipes.observations(answers, missing, form)


def _say_unanswered(missing: Iterable[str], unreadable: Collection[str]) -> None:
    why = "a newer version wrote it, or it is damaged"
    for name in sorted(unreadable):
        say(f"feeler: the web cannot read what is stored of {name}: {why}")
    for name in missing:
        if name not in unreadable:
            say(f"feeler: there is no database named {name}")


@app.command()
def info(name: NameArgument) -> None:
    """Show all there is to know about one database."""
    from monitor.terminal import tables

    with _client() as client:
        answer = client.observation(name)
        tables.info(answer, client.now)
        try:
            tables.transitions(client.transitions(name, limit=5))
        except FeelerError as error:
            say(f"feeler: no history: {error}")
    if not _fresh(answer):
        raise typer.Exit(STALE_OR_UNKNOWN)


@app.command()
def observe(
    target: Annotated[str, typer.Argument(metavar="NAME|URL|-|env:NAME", callback=check_not_empty)],
    owner: Annotated[
        bool, typer.Option("--owner", help="Ask its owner to do it, and wait for nothing.")
    ] = False,
) -> None:
    """Probe a database from here, now, and show each step; its state does not change."""
    if owner:
        with _client() as client:
            typer.echo(client.observe(target)["request"])
        return
    from monitor.terminal import probe

    is_address = "://" in target or target == "-" or target.startswith("env:")
    settings = _settings(stores=not is_address)
    if is_address:
        address = parse_address(given_url(target))
    else:
        address = probe.registered_address(settings, target)
    found = probe.probe_once(address, settings.ca_dir)
    for line in probe.lines(address, found):
        typer.echo(line)
    if found.cause is not Cause.OK:
        raise typer.Exit(CONDITION_FALSE)


@app.command()
def transitions(
    name: NameArgument,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until interrupted.")
    ] = False,
    output: Output = None,
) -> None:
    """Show how the state of a database changed, newest last."""
    from monitor.terminal import pipes
    from monitor.terminal.client import WINDOW

    form = form_of(output)
    with _client() as client:
        newest = client.transitions(name, max(limit, WINDOW) if follow else limit)
        known = newest[::-1]
        shown = known[-limit:]
        if form == "table":
            from monitor.terminal import tables

            tables.transitions(shown)
        else:
            pipes.transitions(shown, form)
        if follow:
            pipes.follow(client, name, {one["identity"] for one in known}, form)


@journal.command("dead")
def journal_dead() -> None:
    """List the entries that a process could not read, and whether this version can.

    Exits with 3 if there are any.
    """
    from monitor.terminal import redis_admin

    found = redis_admin.dead_letters(_settings(stores=True))
    for letter in found:
        readable = "readable" if letter.readable else "unreadable"
        groups = ",".join(letter.groups)
        columns = (str(letter.partition), letter.entry, groups, readable, letter.event)
        typer.echo("\t".join(columns))
    raise typer.Exit(CONDITION_FALSE if found else 0)


@journal.command("replay")
def journal_replay() -> None:
    """Give what this version can read of them to the journal again.

    Do it once all supervisors are of this version.
    """
    from monitor.terminal import redis_admin

    replayed, left = redis_admin.replay_dead_letters(_settings(stores=True))
    say(f"{replayed} entries replayed, {left} left that this version cannot read either")


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as version_of

    typer.echo(version_of("feeler"))


def main() -> None:
    """Run the command line."""
    app(prog_name="feeler")


def _show(client: "Client", registered: "RegisteredShape") -> None:
    """Print what is registered, and what the first look at it finds."""
    from monitor.terminal.first_look import await_first_look

    name = registered["name"]
    typer.echo(f"{name}\t{registered['url']}")
    sys.stdout.flush()
    say(f"{name}: {await_first_look(client, registered)}")


def _fresh(answer: "LastObservationShape") -> bool:
    return answer["observation"] is not None and not answer["observation"]["stale"]


def _settings(*, stores: bool) -> "Settings":
    from monitor.config import Settings

    return Settings.from_env(os.environ, stores=stores)


def _client() -> "Client":
    from monitor.terminal.client import Client

    return Client(_settings(stores=False))


if __name__ == "__main__":
    main()
