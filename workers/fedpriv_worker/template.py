"""The commented `worker.toml` that `fedpriv worker init` writes.

Its owner fills the blanks and removes one "#" for each thing to use; as written, nothing may leave, and the data set in
comments lets out only what its owner approves. Every example in a comment is one that this version reads. It makes no
keys and no certificates; `fedpriv worker join` does, and then fills in what it was told. It needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedpriv.errors import UsageError
from fedpriv.ids import checked_name

FILE = "worker.toml"

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
address = "{address}"
# [listen]                             # or wait for a coordinator or researcher to connect
# address = "0.0.0.0:7443"

[tls]                                  # from `fedpriv certs`: who both sides trust, and who this worker is
ca = "ca.pem"
certificate = "certificate.pem"
key = "key.pem"
{registrar}

# Who else holds the ledger's checkpoints, so that nobody can take it back unnoticed: any C2SP witness.
# [[witness]]
# url = "https://witness.example/ledgers"
# vkey = "witness.example+3c436f90+BIqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c"

# Take part in sums over several workers, under the rule "secure-sum". The key is the administrator's, from
# `fedpriv certs administrator`: get it from a person, not from a coordinator. Then, here: fedpriv worker roster show,
# and once the administrator signed a roster: fedpriv worker roster accept roster.toml
{aggregation}
# minimum_cohort = 3                   # in a sum of fewer this worker takes no part, whatever a rule says
# colluding = 0.333333                 # share of the workers that may work together with the coordinator
# maximum_weight = 10000               # what this worker weighs in a mean at most; otherwise as many as it has rows

# What one peer may use here at once; more than that is refused before anything is allocated.
# [limits]
# memory_gib = 4.0                     # one batch of a plan, and all values behind a peer's pointers
# work = 1e13                          # elementary operations of one batch, or of one operation
# values = 1000000                     # values behind pointers in one session

# For whatever watches this process, on this machine alone: grpc.health.v1, and numbers for Prometheus.
# [operations]
# health = "127.0.0.1:7450"
# metrics = "127.0.0.1:7451"

# One [[dataset]] for each data set. Remove the "#" in front of the lines that you use.
# [[dataset]]
# name = "my-data"                     # what coordinators ask for
# path = "rows.parquet"                # .parquet, .arrow, .feather, .csv, .npz (arrays `features` and the target),
                                       # NAME-images-idx3-ubyte (.gz), a folder with one folder of pictures per
                                       # class, or a loader "package.module:function" that you installed
# target = "outcome"                   # the column to learn: bool and float become float32, integer and text int64
# columns = ["age", "pulse"]           # feature columns; otherwise all but the target
# classes = ["no", "maybe", "yes"]     # classes of an integer or text target (or their number), alike at all workers
# features_dtype = "float32"           # or "int64", for tokens and other codes
# tags = ["#example"]
# description = "one line for people"
# validation = 0.2                     # share of rows held out here to evaluate models on
# rows = "rounded"                     # what is said of the row count: "exact", "rounded" (down to tens), "hidden"
# mock = "mock.parquet"                # a stand-in of the same columns that you wrote, for the rule "mock"
# legal_basis = "GDPR Art. 6(1)(e)"    # one line that every ledger entry about this data set repeats
# budget = {{ epsilon = 8.0, delta = 1e-5, unit = "row" }}  # what may be learned of one row, by everybody, ever;
                                       # delta below 1 / rows. Only what is noised is billed to it. For people with
                                       # several rows: unit = "patient", unit_column = "patient_id"
#
# What may leave. Any one rule suffices, all conditions within it must hold; no rule, no release.
# release = [
#   # Each order waits for your own yes: `fedpriv worker requests`, then approve, deny or explain.
#   {{ rule = "approval", weight = "rounded" }},
#
#   # Instead of it, or beside it:
#   # The named coordinator sees each update of this worker. weight: "exact", "rounded" or "uniform" row counts.
#   # {{ rule = "plain-update", recipients = ["coordinator-1"], weight = "rounded" }},
#   # Sums over the rows of each feature column leave: for mean and deviation across workers.
#   # {{ rule = "statistics", kinds = ["count", "sum", "sum-of-squares"], recipients = ["coordinator-1"] }},
#   # Loss and accuracy of a model on this data leave.
#   # {{ rule = "metrics", kinds = ["loss", "accuracy"], recipients = ["coordinator-1"] }},
#   # Coordinators and researchers read the stand-in, never the rows.
#   # {{ rule = "mock" }},
#   # Only sums over several workers leave (updates, metrics, statistics), never what is in them of this one.
#   # {{ rule = "secure-sum", minimum_workers = 3 }},
#   # Only what was noised here leaves, billed to the budget; maximum_epsilon is for one job, all its rounds.
#   # {{ rule = "differential-privacy", maximum_epsilon = 3.0 }},
#   # Both at once: sums of what the workers noised to that epsilon.
#   # {{ rule = "secure-sum", minimum_workers = 3, maximum_epsilon = 3.0 }},
#
#   # Any rule may also name its recipients; a purpose, and it then holds only for jobs that state exactly that one;
#   # and how often it may let something out within 24 hours:
#   # {{ rule = "metrics", recipients = ["coordinator-1"], purpose = "sepsis study", rounds_per_day = 20 }},
# ]
"""


@dataclass(frozen=True, slots=True)
class Told:
    """What a worker that joined knows already: whom to dial, who renews its certificate, and who signs rosters.

    `administrator` is the key in base64, "" where the token carried none.
    """

    address: str = "coordinator.example:7443"
    registrar: str = ""
    administrator: str = ""


NOTHING_TOLD = Told()


def render_template(name: str, told: Told = NOTHING_TOLD) -> str:
    """Return the text of a commented `worker.toml` for the worker `name`, under which nothing may leave."""
    registrar = f'registrar = "{told.registrar}"' if told.registrar else '# registrar = "ca.example:7444"'
    key = told.administrator or "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    off = "" if told.administrator else "# "
    return _TEMPLATE.format(
        name=checked_name("worker", name),
        address=told.address,
        registrar=f"{registrar:<39}# renews the certificate while the worker runs, and knows who is revoked",
        aggregation=f'{off}[secure_aggregation]\n{off}administrator = "{key}"',
    )


def write_template(folder: Path, name: str | None = None, told: Told = NOTHING_TOLD) -> Path:
    """Write `worker.toml` into `folder`, made if need be, and return its path; never write over one that is there.

    The worker is called as `folder` is, unless `name` says otherwise.
    """
    path = folder / FILE
    text = render_template(folder.resolve().name if name is None else name, told)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path} exists already and was left as it is; choose another folder or edit it") from None
    return path
