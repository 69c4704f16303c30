"""The commented `worker.toml` that `fedpriv worker init` writes.

Its owner fills the blanks and removes one "#" for each thing that may leave; as written, nothing may. Every example in
a comment is one that this version reads. It makes no keys and no certificates.
"""

from __future__ import annotations

from pathlib import Path

from fedpriv.errors import UsageError
from fedpriv.ids import checked_name
from fedpriv_worker.config import FILE

_TEMPLATE = """\
# The worker of one data owner. It holds the data, computes on it, and lets out only what a rule below names.
# Paths are relative to this file. An unknown key is refused, never ignored.

[worker]
name = "{name}"                        # as in the certificate
state = "state/"                       # journal, ledger and keys; one process at a time
device = "cpu"                         # the only one in this version
# threads = 4                          # processor threads for training; torch decides otherwise

# Keep exactly one of [dial] and [listen].
[dial]                                 # open one outbound stream to the coordinator: works behind NAT and firewalls
address = "coordinator.example:7443"
# [listen]                             # or wait for a coordinator or researcher to connect
# address = "0.0.0.0:7443"

[tls]                                  # from `fedpriv certs`: who both sides trust, and who this worker is
ca = "ca.pem"
certificate = "certificate.pem"
key = "key.pem"

# One [[dataset]] for each data set. Remove the "#" in front of the lines that you use.
# [[dataset]]
# name = "my-data"                     # what coordinators ask for
# path = "rows.parquet"                # .parquet, .csv, .npz (arrays `features` and the target), or a loader
                                       # "package.module:function" that you installed
# target = "outcome"                   # the column to learn: bool and float become float32, integer and text int64
# columns = ["age", "pulse"]           # feature columns; otherwise all but the target
# classes = ["no", "maybe", "yes"]     # classes of an integer or text target (or their number), alike at all workers
# features_dtype = "float32"           # or "int64", for tokens and other codes
# tags = ["#example"]
# description = "one line for people"
# validation = 0.2                     # share of rows held out here to evaluate models on
# rows = "rounded"                     # what is said of the row count: "exact", "rounded" (down to tens), "hidden"
#
# What may leave. Any one rule suffices, all conditions within it must hold; no rule, no release.
# release = [
#   # The named coordinator sees each update of this worker. weight: "exact", "rounded" or "uniform" row counts.
#   {{ rule = "plain-update", recipients = ["coordinator-1"], weight = "rounded" }},
#   # Sums over the rows of each feature column leave: for mean and deviation across workers.
#   {{ rule = "statistics", kinds = ["count", "sum", "sum-of-squares"], recipients = ["coordinator-1"] }},
#   # Loss and accuracy of a model on this data leave.
#   {{ rule = "metrics", kinds = ["loss", "accuracy"], recipients = ["coordinator-1"] }},
#   # Any rule may add purpose = "...": it then holds only for jobs that state exactly this purpose.
#
#   # Not in this version, which refuses them rather than pretend to keep them:
#   # rule = "secure-sum"              only the sum over several workers leaves, never one worker's update
#   # rule = "differential-privacy"    only noised results leave, and each is billed to a budget
#   # rule = "approval"                each release waits for your own yes
#   # rule = "mock"                    a stand-in that you wrote may be read by anyone
# ]
"""


def render_template(name: str) -> str:
    """Return the text of a commented `worker.toml` for the worker `name`, under which nothing may leave."""
    return _TEMPLATE.format(name=checked_name("worker", name))


def write_template(folder: Path, name: str | None = None) -> Path:
    """Write `worker.toml` into `folder`, made if need be, and return its path; never write over one that is there.

    The worker is called as `folder` is, unless `name` says otherwise.
    """
    path = folder / FILE
    text = render_template(folder.resolve().name if name is None else name)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} exists already and was left as it is; choose another folder or edit it") from None
    return path
