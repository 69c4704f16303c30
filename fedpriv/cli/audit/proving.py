"""`fedpriv audit prove` and `check-proof`: that one entry is in a signed ledger, as one small file (C2SP tlog-proof).

A proof needs no ledger beside it, and shows nothing of the other entries but hashes.
"""

from __future__ import annotations

import json
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from fedpriv.cli.audit.choosing import AsJson, OwnersKey
from fedpriv.cli.audit.printing import console, print_json, printable, say, time_text
from fedpriv.cli.audit.witnessing import Witnesses, absent, witnessed_text
from fedpriv.errors import UsageError, VerificationFailed
from fedpriv.ledger.checkpoint import Algorithm, parse_verifier_key
from fedpriv.ledger.entries import decode_entry
from fedpriv.ledger.proofs import MAXIMUM_PROOF_BYTES, SUFFIX, decode_proof, encode_proof, verify_proof
from fedpriv.storage.files import read_bounded, write_atomically
from fedpriv.storage.proving import prove_entry
from fedpriv.storage.tiles import TileFolder
from fedpriv.storage.verification import find_ledgers, verify_ledger


def prove(
    where: Annotated[Path, typer.Argument(metavar="LEDGER", help="The ledger, or a folder that holds one.")],
    number: Annotated[int, typer.Argument(metavar="ENTRY", min=0, help="The entry's number.")],
    *,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help=f"ENTRY{SUFFIX} by default.")
    ] = None,
    key: OwnersKey = None,
) -> None:
    """Write a proof that an entry is in the ledger, which verifies without the ledger."""
    (folder, *others) = find_ledgers(where)
    if others:
        raise UsageError(f"{where} holds {len(others) + 1} ledgers; name the ledger, as in {quote(str(folder))}")
    report = verify_ledger(folder, key=key)
    proof = prove_entry(TileFolder(folder), parse_verifier_key(report.vkey), number)
    path = output or Path(f"{number}{SUFFIX}")
    write_atomically(path, encode_proof(proof), durable=False)
    command = f"fedpriv audit check-proof {quote(str(path))} --key {quote(report.vkey)}"
    say(f"wrote {path}; who gets it checks it with: {command}")
    say("the key has to reach them from the ledger's owner, and not with this file")


def check_proof(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A proof that `fedpriv audit prove` wrote.")],
    *,
    key: Annotated[str, typer.Option(metavar="VKEY", help="The worker's verifier key, from its owner.")],
    witness: Witnesses = None,
    as_json: AsJson = False,
) -> None:
    """Prove offline that an entry is in a ledger, and print that entry; exit code 3 if it is not."""
    data = read_bounded(file, MAXIMUM_PROOF_BYTES)
    if data is None:
        raise UsageError(f"{file} is no proof: there is no such file")
    proof = decode_proof(data)
    if not proof.entry:
        raise VerificationFailed(f"{file} has no entry in it; it proves a hash, and nothing that can be read")
    keys = [parse_verifier_key(text.strip(), Algorithm.COSIGNATURE) for text in witness or ()]
    cosigned = verify_proof(proof, parse_verifier_key(key.strip()), keys)
    entry = decode_entry(proof.entry)
    if entry.seq != proof.index:
        raise VerificationFailed(f"the entry says that it is number {entry.seq}, the proof is of {proof.index}")
    if names := absent(witness or (), cosigned.witnessed):
        raise VerificationFailed(
            f"{file}: no cosignature of {', '.join(names)} verified under the key given with --witness; ask for a "
            f"proof from a ledger that it cosigned, or leave --witness out"
        )
    if as_json:
        print_json(
            {
                "origin": cosigned.checkpoint.origin, "index": proof.index, "size": cosigned.checkpoint.size,
                "root": cosigned.checkpoint.root.hex(), "entry": json.loads(proof.entry),
                "witnessed": [{"witness": each.name, "time": each.time} for each in cosigned.witnessed],
            }
        )  # fmt: skip  # one line per group of fields
        return
    draft = entry.draft
    what = f"{draft.kind} to {draft.peer}, {draft.bytes:,} bytes, {time_text(entry.time)} UTC, digest {entry.digest}"
    size = cosigned.checkpoint.size
    line = f"{cosigned.checkpoint.origin}: ok: entry {proof.index} of {size:,}: {what}"
    console().print(printable(line), soft_wrap=True)
    for each in cosigned.witnessed:
        console().print(printable(f"{cosigned.checkpoint.origin}: {witnessed_text(each)}"), soft_wrap=True)
