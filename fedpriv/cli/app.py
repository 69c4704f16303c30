"""The `fedpriv` command: which sub-command does what, and what a failure looks like.

Data goes to stdout, diagnostics to stderr. Exit codes: 0 ok, 2 usage, 3 verification failed, 4 denied, 5 peer
lost, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM). A sub-command is imported when it runs, so that help and
`audit` answer without torch. No traceback reaches a terminal unless it is asked for: an exception's text can quote a
value.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from fedpriv.cli import logs
from fedpriv.cli.stopping import TERMINATED, Terminated, terminable
from fedpriv.cli.terminal import harmless
from fedpriv.errors import FedprivError

app = typer.Typer(
    name="fedpriv",
    help="Train on data that never moves: workers hold it, a coordinator learns, a signed ledger proves what left.",
    epilog="Start with: fedpriv demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
worker = typer.Typer(help="Hold data, and let nothing leave that its owner's rules do not allow.", no_args_is_help=True)
app.add_typer(worker, name="worker")
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
"""Settings of a command whose arguments another Typer application reads."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its code; a refusal is one line on stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    verbose = "--verbose" in words or bool(os.environ.get("FEDPRIV_DEBUG"))
    as_json = "--log-json" in words
    if verbose or as_json:
        logs.configure(as_json=as_json, level=logging.DEBUG if verbose else logging.INFO)
    try:
        with terminable():
            app(args=[word for word in words if word not in ("--verbose", "--log-json")], prog_name="fedpriv")
    except FedprivError as error:
        _fail(str(error), error.exit_code, traced=verbose)
    except KeyboardInterrupt:
        _fail("interrupted", 130, traced=verbose)
    except Terminated:
        _fail("terminated", TERMINATED, traced=verbose)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains again at its exit
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - the last resort of a command; the text may quote a value
        _fail(f"a defect of ours, {type(error).__name__}; --verbose shows where", 1, traced=verbose)
    sys.exit(0)


def _fail(message: str, code: int, *, traced: bool) -> NoReturn:
    if traced:
        traceback.print_exc()
    lines = "\n".join(map(harmless, message.split("\n")))  # a message can quote a file's name, or what a peer wrote
    if logs.are_json():
        logging.getLogger("fedpriv").error(message)
    else:
        print(f"fedpriv: error: {lines}", file=sys.stderr)  # noqa: T201 - this is the command line
    sys.exit(code)


def _version(wanted: bool) -> None:  # noqa: FBT001 - the signature that typer calls
    if wanted:
        typer.echo(f"fedpriv {importlib.metadata.version('fedpriv')}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and stop.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show logs, and where an error was raised.")] = False,
    log_json: Annotated[bool, typer.Option("--log-json", help="Logs as one JSON object a line, on stderr.")] = False,
) -> None:
    """Declare the options of the command itself; `main` takes --verbose and --log-json wherever they stand."""


@app.command()
def demo(
    *,
    plain: Annotated[
        bool, typer.Option("--plain", help="The coordinator sees each update: no secure aggregation.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, max=64, help="How many workers.")] = 5,
    rounds: Annotated[int, typer.Option(min=1, max=10_000)] = 20,
    kill: Annotated[
        str | None,
        typer.Option(
            metavar="NAME@ROUND[:MESSAGE]",
            help="Kill that worker's process in that round: before it is asked, or, with keys, shares, masked, confirm "
            "or unmask, as soon as that message of it arrived.",
        ),
    ] = None,
    quorum: Annotated[
        int | None, typer.Option(min=1, help="Updates that a round needs.", show_default="all but one")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    run: Annotated[
        Path | None, typer.Option(help="Folder for what the run leaves.", show_default="runs/UTC-demo")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Run the main job end to end on real data: workers, training, and the proof of what left."""
    from fedpriv.cli import demo as command  # noqa: PLC0415 - brings torch

    command.demo(
        plain=plain, workers=workers, rounds=rounds, kill=kill, quorum=quorum, as_json=as_json, run=run, seed=seed
    )


@app.command()
def plot(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, each with its history.json.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture: png, svg or pdf.")] = Path("runs.png"),
    column: Annotated[list[str] | None, typer.Option(help="What to draw; otherwise all that they share.")] = None,
) -> None:
    """Draw loss and accuracy of several runs into one picture."""
    from fedpriv.cli import plot as command  # noqa: PLC0415 - brings matplotlib

    command.plot(runs, output, column or [])


@worker.command("init")
def worker_init(
    folder: Annotated[Path, typer.Argument(help="A folder without a worker.toml; made if need be.")],
    name: Annotated[str | None, typer.Option(help="The worker's name.", show_default="the folder's")] = None,
) -> None:
    """Write a commented worker.toml, under which nothing may leave."""
    from fedpriv.cli import worker as command  # noqa: PLC0415 - brings torch

    command.init(folder, name)


@worker.command("join")
def worker_join(
    token: Annotated[str, typer.Argument(help="The line that `fedpriv certs join-token` printed.")],
    *,
    coordinator: Annotated[str, typer.Option(metavar="HOST:PORT", help="Whom the worker will dial.")],
    registrar: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Who answers.", show_default="as the token says, or port 7444 there"),
    ] = "",
    folder: Annotated[Path | None, typer.Option(help="Where it is written.", show_default="here")] = None,
) -> None:
    """Make a key, get a certificate for it with a token, and write worker.toml; nothing may leave yet."""
    from fedpriv.cli import joining as command  # noqa: PLC0415 - imported when it runs, as every other

    command.join_worker(token, coordinator, registrar, folder)


@worker.command("start")
def worker_start(
    config: Annotated[Path, typer.Option(help="The worker's TOML file.")] = Path("worker.toml"),
) -> None:
    """Start the worker that its file describes, and keep it up until it is interrupted."""
    from fedpriv.cli import worker as command  # noqa: PLC0415 - brings torch

    command.start(config)


def _owner_command(name: str, text: str) -> None:
    """Add a command of `fedpriv.cli.requests` under `fedpriv worker`."""

    @worker.command(name, help=text, context_settings=_PASSED_ON, options_metavar="")
    def _(context: typer.Context) -> None:
        from fedpriv.cli import requests as command  # noqa: PLC0415 - imported when it runs, as every other

        command.app(args=[name, *context.args], prog_name="fedpriv worker")


_owner_command("requests", "List what peers asked for; `requests show ID` shows one.")
_owner_command("explain", "Say in words who asks for what, what would leave, and what you can do.")
_owner_command("approve", "Let a request out so many times, for so long.")
_owner_command("deny", "Stop a request, whatever your rules say.")
_owner_command("datasets", "List what is held: rows, rules in words, what is left of each budget.")


@worker.command("roster", context_settings=_PASSED_ON, options_metavar="")
def worker_roster(context: typer.Context) -> None:
    """Show this worker's key and whom its owner sums with; accept another roster."""
    from fedpriv.cli import roster as command  # noqa: PLC0415 - imported when it runs, as every other

    command.app(args=context.args, prog_name="fedpriv worker roster")


@app.command("run")
def run_job(
    *,
    job: Annotated[Path, typer.Argument(help="The job's TOML file.")],
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Coordinate a job: wait for its workers, train, and save what came out."""
    from fedpriv.cli import run as command  # noqa: PLC0415 - brings torch

    command.run(job, resume, as_json)


@app.command("doctor")
def doctor(
    *,
    config: Annotated[Path | None, typer.Option(help="A worker's TOML file.", show_default="worker.toml here")] = None,
    job: Annotated[Path | None, typer.Option(help="A job's TOML file.")] = None,
    to: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="A worker that listens, for researchers.")] = None,
    credentials: Annotated[Path | None, typer.Option(help="With --to: the folder of our certificate.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Check versions, disk, certificate, name, proxy, port, TLS and clock, and say how to mend what fails."""
    from fedpriv.cli import doctor as command  # noqa: PLC0415 - imported when it runs, as every other

    command.doctor(config, job, to, credentials, as_json=as_json)


@app.command("health")
def health(
    at: Annotated[str, typer.Argument(metavar="HOST:PORT", help="[operations] health of a process on this machine.")],
    service: Annotated[str, typer.Option(help='"" is the process, fedpriv.link whether it has a link.')] = "",
) -> None:
    """Ask a process whether it serves; exit code 0 if so, 5 if not: for containers and scripts."""
    from fedpriv.cli import health as command  # noqa: PLC0415 - imported when it runs, as every other

    command.health(at, service)


@app.command("simulate")
def simulate_job(
    *,
    job: Annotated[Path, typer.Argument(help="The job's TOML file, with a [simulation].")],
    engine: Annotated[str | None, typer.Option(help="auto, sequential, threads or stacked.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Try a job out on described workers, on this machine alone."""
    from fedpriv.cli import simulate as command  # noqa: PLC0415 - brings torch

    command.simulate(job, engine, as_json)


@app.command("attack")
def attack(
    *,
    run: Annotated[Path, typer.Argument(help="The folder of a run on simulated data, with its payloads recorded.")],
    epsilon: Annotated[float | None, typer.Option(help="What was claimed for one row, to hold guesses to.")] = None,
    delta: Annotated[float, typer.Option(help="Its delta.")] = 1e-5,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Try known attacks on what a recorded run let out, each beside a control, and draw what they get."""
    from fedpriv.cli import attack as command  # noqa: PLC0415 - brings torch

    command.attack(run, epsilon, delta, as_json=as_json)


@app.command("certs", context_settings=_PASSED_ON, options_metavar="")
def certs(context: typer.Context) -> None:
    """Make an authority and certificates; an administrator and the rosters that it signs."""
    from fedpriv.cli import certs as command  # noqa: PLC0415 - imported when it runs, as every other

    command.app(args=context.args, prog_name="fedpriv certs")


@app.command("audit", context_settings=_PASSED_ON, options_metavar="")
def audit(context: typer.Context) -> None:
    """Show and verify what left a worker, offline, from its ledger."""
    from fedpriv.cli import audit as command  # noqa: PLC0415 - imported when it runs, as every other

    command.app(args=context.args, prog_name="fedpriv audit")


@app.command("budget", context_settings=_PASSED_ON, options_metavar="")
def budget(context: typer.Context) -> None:
    """Show what was spent of each data set, by whom, and what is left."""
    from fedpriv.cli import budget as command  # noqa: PLC0415 - brings torch

    command.app(args=context.args, prog_name="fedpriv budget")


if __name__ == "__main__":
    main()
