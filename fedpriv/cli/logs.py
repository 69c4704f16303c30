"""Logs as lines for people, or as one JSON object each (`--log-json`): time, level, logger, message and ids.

An object has what `occasion` knows: worker, peer, session, request, round. It never has the text of an exception, which
can quote a value, nor the arguments of a message beside the message itself; what a peer wrote is made legible.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from fedpriv.legible import legible
from fedpriv.occasion import ids

PLAIN = "%(asctime)s %(levelname)s %(message)s"


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of `record`."""
        line: dict[str, str | int] = {
            "time": f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": legible(record.getMessage()),
            **ids(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
        return json.dumps(line)


def configure(*, as_json: bool, level: int = logging.INFO) -> None:
    """Send logs to stderr; the first call of a process decides how."""
    if as_json:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonLines())
        logging.basicConfig(level=level, handlers=[handler])
    else:
        logging.basicConfig(level=level, stream=sys.stderr, format=PLAIN)


def are_json() -> bool:
    """Return whether lines on stderr are JSON."""
    return any(isinstance(each.formatter, JsonLines) for each in logging.getLogger().handlers)


def say(text: str) -> None:
    """Tell people on stderr; where logs are JSON, as one of them."""
    if are_json():
        logging.getLogger("fedpriv").info(text)
    else:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
