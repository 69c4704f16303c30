"""`fedpriv budget`: what was spent of each data set, by whom, and what is left; what a job would cost.

It reads the files of a worker's state folder, whether the worker runs or not, and changes nothing. Budgets and rules
come from worker.toml: without that file only what was spent is known. Epsilon is told at each budget's own delta.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from fedpriv.cli.asking import CONFIG, Place, ask_files, place_at, say
from fedpriv.cli.audit.printing import console, harmless, print_json, printable
from fedpriv.cli.requests import budget_text
from fedpriv.errors import UsageError, nearest

app = typer.Typer(
    help="Read what was spent of the data sets' budgets, and what is left.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Where = Annotated[
    Path | None,
    typer.Argument(
        metavar="WORKER.TOML|STATE", help="A worker's file, or its state folder.", show_default="worker.toml, here"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of text.")]


@app.command("list")
def list_budgets(where: Where = None, *, as_json: AsJson = False) -> None:
    """List each data set with its budget, what is spent, reserved and left, and how often something left."""
    found = ask_files(_place(where), {"ask": "budget"})
    if as_json:
        for each in found:
            print_json(each)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("data set", "epsilon", "delta", "spent", "reserved", "left", "releases"):
        table.add_column(name, justify="left" if name == "data set" else "right")
    for each in found:
        budget = each["budget"]
        epsilon, left = ("none", "") if budget is None else (f"{budget['epsilon']:g}", f"{each['left']:.4g}")
        cells = (
            each["dataset"], epsilon, _delta(each), f"{each['spent']:.4g}", f"{each['reserved']:.4g}", left,
            f"{each['releases']:,}",
        )  # fmt: skip  # one line of cells
        table.add_row(*map(printable, cells))
    if found:
        console().print(table)
    else:
        say("no data set is known, and nothing left yet; a worker.toml declares them under [[dataset]]")


@app.command()
def show(
    where: Where = None,
    *,
    dataset: Annotated[str, typer.Option(help="Only this data set.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show each data set with who received how much, and how often each rule was used in the last 24 hours."""
    found = {each["dataset"]: each for each in ask_files(_place(where), {"ask": "budget"})}
    if dataset and dataset not in found:
        raise UsageError(f"there is no data set {dataset!r}{nearest(dataset, found)}; known are {', '.join(found)}")
    for name, each in found.items():
        if dataset in {"", name}:
            print_json(each) if as_json else _show(each)


@app.command()
def plan(
    job: Annotated[Path, typer.Argument(metavar="JOB.TOML", help="The job's file.")],
    *,
    worker: Annotated[
        Path | None, typer.Option(metavar="WORKER.TOML|STATE", help="Also what it costs this worker's data set.")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="Rows that a worker announces.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a private job will cost before it is run, and the rounds that a worker's budget pays at this noise."""
    from fedpriv.cli import planning  # noqa: PLC0415 - brings both halves

    found = planning.plan(job, rows, None if worker is None else place_at(worker))
    if as_json:
        print_json(found)
    else:
        sys.stdout.write("".join(f"{harmless(line)}\n" for line in planning.in_words(found)))


def _place(where: Path | None) -> Place:
    """Return the worker at `where`; raise `UsageError` where none was named and none is here."""
    if where is None and not CONFIG.is_file():
        raise UsageError(
            "there is no worker.toml here; name a worker's file, its folder or its state folder, as in fedpriv budget "
            "list st-elsewhere"
        )
    return place_at(CONFIG if where is None else where)


def _delta(spent: dict[str, Any]) -> str:
    """Return the delta that the epsilons beside it are told at; nothing where there is neither budget nor loss."""
    return f"{spent['delta']:g}" if spent["budget"] is not None or spent["spent"] or spent["reserved"] else ""


def _cost(recipient: dict[str, Any]) -> str:
    """Return what a recipient's releases cost, in words: one in clear has no price, which is not a small one."""
    if recipient["epsilon"] > 0:
        return f"epsilon {recipient['epsilon']:.4g}, and those in clear without a price"
    return "in clear: no noise, so no epsilon bounds what they tell" if recipient["releases"] else "nothing charged"


def _show(spent: dict[str, Any]) -> None:
    gone = "" if spent["held"] else ", no longer held"
    lines = [f"{spent['dataset']}{gone}", f"  {budget_text(spent)}"]
    lines += [f"  {each['name']}: {each['releases']:,} releases, {_cost(each)}" for each in spent["recipients"]]
    if sum(each["epsilon"] > 0 for each in spent["recipients"]) > 1:
        lines.append("  (together they cost less than the sum of their epsilons)")
    for rule in spent["rules"]:
        limit, used = rule["rounds_per_day"], rule["used_today"]
        counted = "not counted: it has no limit of its own"
        if limit is not None:
            counted = f"used {used:,} of {limit:,} times in 24 hours"
        lines += [f"  rule {rule['rule']}: {counted}", f"    {rule['words']}"]
    sys.stdout.write("".join(f"{harmless(line)}\n" for line in lines))
