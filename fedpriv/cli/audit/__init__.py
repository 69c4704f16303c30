"""`fedpriv audit`: read, verify, report and compare what left, from the files alone.

Every command works on a run, on a worker's state folder, running or not, and on a bare ledger folder, without any
network. What each one does stands in the module of its name; this one only lists them.
"""

from __future__ import annotations

import typer

from fedpriv.cli.audit.exporting import export
from fedpriv.cli.audit.listing import show
from fedpriv.cli.audit.opening import check, open_entries
from fedpriv.cli.audit.proving import check_proof, prove
from fedpriv.cli.audit.reconciling import compare
from fedpriv.cli.audit.reporting import report
from fedpriv.cli.audit.verifying import verify

app = typer.Typer(
    help="Read, verify, report and compare what left the workers.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("show")(show)
app.command("verify")(verify)
app.command("report")(report)
app.command("export")(export)
app.command("reconcile")(compare)
app.command("open")(open_entries)
app.command("check")(check)
app.command("prove")(prove)
app.command("check-proof")(check_proof)
