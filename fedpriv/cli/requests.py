"""`fedpriv worker requests`, `explain`, `approve`, `deny` and `datasets`: what an owner is asked, and answers.

Every command works on a running worker and on a stopped one. What peers wrote reaches the terminal in quotation marks,
as printable text alone. Nothing is asked for interactively, so that each command can stand in a script.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from fedpriv.cli.asking import ask, place_of, say
from fedpriv.cli.audit.printing import console, harmless, print_json, printable, time_text
from fedpriv.cli.durations import seconds_of
from fedpriv.errors import UsageError
from fedpriv.legible import quoted

_CONTEXT = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(no_args_is_help=True, add_completion=False, context_settings=_CONTEXT)
listing = typer.Typer(invoke_without_command=True, context_settings=_CONTEXT)
app.add_typer(listing, name="requests", help="List what peers asked for; show one of them with `show ID`.")

Config = Annotated[
    Path | None, typer.Option(help="The worker's TOML file.", show_default="worker.toml, here", dir_okay=False)
]
State = Annotated[Path | None, typer.Option(metavar="DIR", help="The worker's state folder, instead of its file.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout instead of text.")]
Identity = Annotated[str, typer.Argument(metavar="ID", help="A request's id, or its first digits.")]
OptionalIdentity = Annotated[str, typer.Argument(metavar="ID", help="A request's id, or its first digits.")]
WholeIdentity = Annotated[str, typer.Argument(metavar="ID", help="A request's whole id, as explain prints it.")]
LONGEST_CELL = 40
"""Characters of a purpose in a table."""
_PLAIN_WORD = re.compile(r"[A-Za-z0-9._-]+")


@listing.callback()
def requests(context: typer.Context, *, config: Config = None, state: State = None, as_json: AsJson = False) -> None:
    """List what peers asked for, what waits for you first."""
    if context.invoked_subcommand is not None:
        context.obj = (config, state)
        return
    found = ask(place_of(config, state), {"ask": "requests"})
    if as_json:
        for each in found:
            print_json(each)
        return
    if not found:
        say("nobody has asked for anything yet")
        return
    table = _table("request", "stands", "from", "data set", "asks for", "purpose", "times", "last asked (UTC)")
    for each in found:
        cells = (
            each["id"], each["standing"], each["recipient"], each["dataset"], _asked(each),
            _purpose(each, LONGEST_CELL), f"{each['times']:,}", _time(each["last"]),
        )  # fmt: skip  # one line of cells
        table.add_row(*map(printable, cells))
    console().print(table)
    waiting = sum(each["standing"] == "waiting" for each in found)
    if waiting:
        say(f"{waiting} {'waits' if waiting == 1 else 'wait'} for you: fedpriv worker explain ID, then approve or deny")


@listing.command("show")
def show(
    context: typer.Context, identity: Identity, *, config: Config = None, state: State = None, as_json: AsJson = False
) -> None:
    """Show one request in a few values."""
    before = context.obj or (None, None)
    found = ask(place_of(config or before[0], state or before[1]), {"ask": "show", "id": identity})
    if as_json:
        print_json(found)
        return
    approval = found["approval"]
    rows = {
        "request": found["id"],
        "stands": found["standing"],
        "from": f"{found['recipient']} ({found['role']})",
        "data set": found["dataset"],
        "asks for": _asked(found),
        "purpose": _purpose(found, len(found["purpose"])),
        "plan": found["plan"] or "none",
        "epochs": str(found["epochs"]),
        "batch size": str(found["batch_size"]),
        "asked": f"{found['times']:,} times, from {_time(found['first'])} to {_time(found['last'])} UTC",
        "approval": "none" if approval is None else _approval(approval),
        "denied": found["why"] or "no",
    }
    for name, value in rows.items():
        sys.stdout.write(f"{name:<12}{harmless(value)}\n")


@app.command()
def explain(
    identity: Identity,
    *,
    steps: Annotated[bool, typer.Option("--steps", help="Print every step that made a value, and no more.")] = False,
    config: Config = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Say in words who asks for what, what would leave, what can be read from it, and what you can do."""
    found = ask(place_of(config, state), {"ask": "explain", "id": identity})
    if as_json:
        print_json(found["facts"])
    elif steps:
        for each in (found["facts"]["plan"] or {}).get("listing", []):
            sys.stdout.write(f"{harmless(each)}\n")
    else:
        sys.stdout.write("\n".join(map(harmless, found["text"].split("\n"))))


@app.command()
def approve(
    identity: WholeIdentity,
    *,
    releases: Annotated[
        int | None,
        typer.Option(help="How many times it may leave: a training job needs one for each round, a value leaves once."),
    ] = None,
    expires: Annotated[str, typer.Option(metavar="TIME", help="For how long: 90m, 12h, 7d, 4w; 365d at most.")] = "7d",
    again: Annotated[bool, typer.Option("--again", help="Take back your denial of it.")] = False,
    config: Config = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Let exactly this request out so many times, for so long."""
    place = place_of(config, state)
    if releases is None and "value" in ask(place, {"ask": "show", "id": identity})["releases"]:
        releases = 1
    if releases is None:
        raise UsageError(
            "how many times may it leave? No request says how many rounds its job has: ask who sent it, then give as "
            "many, as in --releases 20"
        )
    question = {
        "ask": "approve", "id": identity, "releases": releases, "expires_seconds": seconds_of(expires), "again": again,
    }  # fmt: skip  # one question
    found = ask(place, question)
    if as_json:
        print_json(found)
        return
    times = "once" if found["releases"] == 1 else f"{found['releases']:,} times"
    asked = found["asked"]
    lines = (
        f"request {found['id']} may leave {found['dataset']} for {found['recipient']} {times}, until "
        f"{_time(found['expires'])} UTC",
        f"it is {_asked(asked)} for the purpose {_purpose(asked, len(asked['purpose']))}{_settings(asked)}, "
        f"plan {asked['plan'] or 'none'}",
        f"approval {found['approval']}",
    )
    sys.stdout.write("".join(f"{harmless(line)}\n" for line in lines))
    if found["reverses"]:
        say(f"this takes back what you decided: {harmless(found['reverses'])}")
    say(f"to withdraw it: fedpriv worker deny {found['id']} --why TEXT")


def _settings(asked: dict[str, Any]) -> str:
    """Return how a job would train; nothing for what trains nothing."""
    if not asked["epochs"] and not asked["batch_size"]:
        return ""
    return f", epochs {asked['epochs']:,}, batch size {asked['batch_size']:,}"


@app.command()
def deny(
    identity: OptionalIdentity = "",
    *,
    why: Annotated[
        str,
        typer.Option(metavar="TEXT", help="Your reason, for your own records: the peer hears no more than your no."),
    ],
    peer: Annotated[str, typer.Option(metavar="NAME", help="Instead of ID: all that this peer asked for so far.")] = "",
    dataset: Annotated[str, typer.Option(metavar="NAME", help="Instead of ID: all that was asked of this.")] = "",
    config: Config = None,
    state: State = None,
    as_json: AsJson = False,
) -> None:
    """Stop exactly this request, whatever your rules say, and withdraw its approval; or all that a peer asked for."""
    if bool(identity) is bool(peer or dataset):
        raise UsageError("give either the ID of a request, or --peer, --dataset or both")
    question: dict[str, object] = {"ask": "deny", "id": identity, "why": why}
    if not identity:
        question = {"ask": "deny-all", "peer": peer, "dataset": dataset, "why": why}
    answer = ask(place_of(config, state), question)
    for found in [answer] if identity else answer:
        if as_json:
            print_json(found)
            continue
        sys.stdout.write(f"request {found['id']} of {harmless(found['recipient'])} is denied; nothing of it leaves\n")
    if not as_json:
        which = "this exact request" if identity else "these exact requests"
        say(f"that is for {which}; one that differs in anything is judged by your rules: see worker datasets")


@app.command()
def datasets(*, config: Config = None, state: State = None, as_json: AsJson = False) -> None:
    """List what is held: rows, rules in words, and what is left of each budget."""
    found = ask(place_of(config, state), {"ask": "datasets"}, loading=True)
    for each in found:
        if as_json:
            print_json(each)
        else:
            _describe(each)
    if not found:
        say("no data set is known; a worker.toml declares them under [[dataset]]")


def _describe(held: dict[str, Any]) -> None:
    """Print what is held of one data set."""
    told = {"exact": "exactly", "rounded": "rounded down to tens", "hidden": "not at all"}[held["told"]]
    rows = "its rows are" if held["rows"] is None else f"{held['rows']:,} rows,"
    sys.stdout.write(f"{held['name']}: {rows} told to peers {told}\n")
    for rule in held["rules"]:
        sys.stdout.write(f"  {rule['words']}\n")
    if not held["rules"]:
        sys.stdout.write("  no rule is active: nothing but its announcement leaves\n")
    budget = held["budget"]
    sys.stdout.write(f"  {budget_text(budget)}\n")


def budget_text(spent: dict[str, Any]) -> str:
    """Return in one line what is left of a data set's budget."""
    left = f"{spent['releases']:,} release{'' if spent['releases'] == 1 else 's'} so far"
    budget = spent["budget"]
    if budget is None:
        return f"no budget; {left}"
    reserved = f", {spent['reserved']:.3g} reserved" if spent["reserved"] else ""
    return (
        f"budget: epsilon {spent['left']:.3g} left of {budget['epsilon']:g} (delta {budget['delta']:g} per "
        f"{budget['unit']}), {spent['spent']:.3g} spent{reserved}; {left}"
    )


def _asked(found: dict[str, Any]) -> str:
    """Return what a request is for; whatever a peer called it that is not one plain word is quoted."""
    named = [each if _PLAIN_WORD.fullmatch(each) else quoted(each, LONGEST_CELL) for each in found["kinds"]]
    if "kinds" in found.get("cut", ()):
        named.append("...")
    kinds = f" ({', '.join(named)})" if named else ""
    return f"{' + '.join(sorted(found['releases'], reverse=True))}{kinds}"


def _purpose(found: dict[str, Any], most: int) -> str:
    return quoted(found["purpose"], most) if found["purpose"] else "not stated"


def _approval(approval: dict[str, Any]) -> str:
    return (
        f"{approval['used']:,} of {approval['releases']:,} releases used, until {_time(approval['expires'])} UTC, "
        f"{approval['digest']}"
    )


def _time(seconds: float) -> str:
    return time_text(int(seconds * 1000), fraction=False)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, justify="right" if name == "times" else "left", no_wrap=name == "request")
    return table
