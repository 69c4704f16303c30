"""Strict reading of a TOML file into frozen dataclasses.

An unknown key, a missing key and a value of another type are each refused with the file, the place and the nearest
valid key; nothing is guessed, converted or ignored. A key that a later version will keep is refused as such, because
a promise that is silently not kept is worse than none. It does not look at what values mean: the dataclasses'
own `__post_init__` do, and their `UsageError` is reported with the place it came from.
"""

from __future__ import annotations

import re
import tomllib
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from fedpriv.errors import ConfigError, UsageError, nearest

T = TypeVar("T")
LARGEST_FILE = 1 << 20
LARGEST_WHOLE = (1 << 63) - 1
_UNQUOTED = re.compile(r"true|false|[+-]?[0-9]+(\.[0-9]+)?")
_ADDRESS = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")


def load(path: Path, schema: type[T]) -> T:
    """Return the TOML file at `path` read as `schema`; raise `ConfigError` naming the place and the remedy."""
    return read(parse(path), schema, where=path.name)


def parse(path: Path) -> Mapping[str, Any]:
    """Return the mapping that the TOML file at `path` holds; raise `ConfigError` with the line of a syntax error."""
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path} is a folder, a pipe or a device; name a file")
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigError(f"{path} is larger than {LARGEST_FILE} bytes; is it a configuration file?")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; check the path") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); check the path and its permissions") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except ValueError as error:  # TOMLDecodeError, or a number too long to read
        raise ConfigError(f"{path} is not valid TOML: {error}; correct that line") from None
    except RecursionError:
        raise ConfigError(f"{path} nests too deeply; no key of ours nests more than four deep") from None


def read(mapping: Mapping[str, Any], schema: type[T], *, where: str, parsed: Mapping[str, object] | None = None) -> T:
    """Return `mapping` as the dataclass `schema`; `where` names the place in errors, such as "worker.toml [dial]".

    A field's metadata may give `key` (its name in TOML) and `parse` (a function of the raw value and the place).
    A class attribute `LATER` maps keys that this version refuses to the reason. `parsed` holds, by field name, what
    the caller has read already.
    """
    assert is_dataclass(schema)
    hints = get_type_hints(schema)
    values: dict[str, Any] = dict(parsed or {})
    known = {_key(item): item for item in fields(schema) if item.init and item.name not in values}
    refuse_unknown(mapping, known, where, later=getattr(schema, "LATER", {}))
    for key, item in known.items():
        if key in mapping:
            place = f"{where} {key}"
            parser: Callable[[Any, str], Any] | None = item.metadata.get("parse")
            values[item.name] = parser(mapping[key], place) if parser else _value(mapping[key], hints[item.name], place)
        elif item.default is MISSING and item.default_factory is MISSING:
            raise ConfigError(f"{where}: {key!r} is missing; {_missing(hints[item.name])}")
    try:
        return schema(**values)
    except UsageError as error:
        raise ConfigError(f"{where}: {error}") from None


def refuse_unknown(
    mapping: Mapping[str, Any], known: Iterable[str], where: str, *, later: Mapping[str, str] | None = None
) -> None:
    """Raise `ConfigError` for the first key that is not among `known`; `later` maps keys of a later version to why."""
    known = tuple(known)
    for name in mapping:
        if later and name in later:
            raise ConfigError(f"{where}: {name!r} is refused: {later[name]}")
        if name not in known:
            raise ConfigError(f"{where}: {name!r} is no key here{nearest(name, known)}; it takes {', '.join(known)}")


def key(name: str, *, parse: Callable[[Any, str], Any] | None = None) -> Mapping[str, Any]:
    """Return the metadata of a field that is called `name` in TOML, or that `parse` reads."""
    return {"key": name, "parse": parse}


def table(value: object, where: str) -> Mapping[str, Any]:
    """Return `value` if it is a TOML table; raise `ConfigError` if not."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} must be a table, not {_found(value)}")
    return value


def array(value: object, where: str) -> list[Any]:
    """Return `value` if it is a TOML array; raise `ConfigError` if not."""
    if not isinstance(value, list):
        raise ConfigError(f"{where} must be an array [...], not {_found(value)}")
    return value


def address(value: object, where: str) -> str:
    """Return `value` if it is "host:port" to dial, "[::1]:7443" for IPv6; raise `ConfigError` if not."""
    return _address(value, where, lowest_port=1)


def listening_address(value: object, where: str) -> str:
    """Return `value` if it is "host:port" to listen at, where port 0 lets the system pick."""
    return _address(value, where, lowest_port=0)


def loopback_address(value: object, where: str) -> str:
    """Return `value` if it is "host:port" of this machine alone; port 0 lets the system pick."""
    found = listening_address(value, where)
    host = found.rpartition(":")[0].strip("[]")
    if host not in ("localhost", "::1") and not host.startswith("127."):
        raise ConfigError(f"{where} must be on this machine alone, such as '127.0.0.1:7450', not {_content(value)}")
    return found


@dataclass(frozen=True, slots=True)
class Operations:
    """What watches the process, both on loopback and off by default: `health` (grpc.health.v1), `metrics` (HTTP)."""

    health: str | None = field(default=None, metadata={"parse": loopback_address})
    metrics: str | None = field(default=None, metadata={"parse": loopback_address})


NOT_WATCHED = Operations()


def _address(value: object, where: str, *, lowest_port: int) -> str:
    match = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if match is None or not lowest_port <= int(match["port"]) <= 65535:
        raise ConfigError(
            f"{where} must be a host and a port from {lowest_port} to 65535, such as 'coordinator.example:7443', "
            f"not {_content(value)}"
        )
    return match[0]


def _key(item: Field[Any]) -> str:
    return str(item.metadata.get("key", item.name))


def _value(value: object, expected: object, where: str) -> object:
    origin, arguments = get_origin(expected), get_args(expected)
    if origin in (Union, types.UnionType):
        return _one_of(value, arguments, where)
    if origin is Literal:
        if value not in arguments:
            close = nearest(value, arguments) if isinstance(value, str) else ""
            raise ConfigError(f"{where} must be {_name(expected)}, not {_content(value)}{close}")
        return value
    if origin is tuple:
        return _items(array(value, where), arguments, where)
    if is_dataclass(expected) and isinstance(expected, type):
        parent, _, name = where.rpartition(" ")
        return read(table(value, where), expected, where=f"{parent} [{name}]")
    return _scalar(value, expected, where)


def _one_of(value: object, choices: tuple[object, ...], where: str) -> object:
    """Return `value` read as the first choice that fits; TOML has no null, so None never matches."""
    choices = tuple(choice for choice in choices if choice is not type(None))
    if isinstance(value, list):  # what is wrong is in it, where an array may stand at all
        choices = tuple(choice for choice in choices if get_origin(choice) is tuple) or choices
    if len(choices) == 1:
        return _value(value, choices[0], where)
    for choice in choices:
        try:
            return _value(value, choice, where)
        except ConfigError:
            continue
    raise ConfigError(f"{where} must be {' or '.join(map(_name, choices))}, not {_found(value)}")


def _items(values: list[Any], arguments: tuple[object, ...], where: str) -> tuple[object, ...]:
    if arguments[-1] is not Ellipsis:
        if len(values) != len(arguments):
            raise ConfigError(f"{where} must have {len(arguments)} items, not {len(values)}")
        kinds = arguments
    else:
        kinds = (arguments[0],) * len(values)
    parent, _, name = where.rpartition(" ")
    return tuple(
        read(table(item, f"{where}[{index}]"), kind, where=f"{parent} [[{name}]] {index}")
        if is_dataclass(kind) and isinstance(kind, type)
        else _value(item, kind, f"{where}[{index}]")
        for index, (item, kind) in enumerate(zip(values, kinds, strict=True), start=1)
    )


def _scalar(value: object, expected: object, where: str) -> object:
    if expected is Path and isinstance(value, str):
        return Path(value)
    if expected is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST_WHOLE:
        return float(value)
    underlying: Any = getattr(expected, "__supertype__", expected)
    too_large = isinstance(value, int) and abs(value) > LARGEST_WHOLE
    if not isinstance(value, underlying) or (isinstance(value, bool) and underlying is not bool) or too_large:
        raise ConfigError(f"{where} must be {_name(expected)}, not {_found(value)}{_quoting(value, underlying)}")
    return value


def _missing(expected: object) -> str:
    return f"add it as {_name(expected)}"


def _found(value: object) -> str:
    """Return what a value is and, cut, which one: what a configuration says is its owner's own to read."""
    match value:
        case bool():
            return "true" if value else "false"
        case list():
            return f"an array of {len(value)} item{'' if len(value) == 1 else 's'}"
        case dict():
            return f"a table with {', '.join(map(repr, value)) or 'nothing in it'}"[:120]
        case int() if abs(value) > LARGEST_WHOLE:
            return "a whole number of more than 64 bits"
        case datetime() | date() | time():
            return f"a date or time ({value.isoformat()})"
    return f"{_name(type(value))} ({value!r:.80})"


def _content(value: object) -> str:
    """Return a string by its content alone, where strings are what is expected and this one is none of those."""
    return f"{value!r:.80}" if isinstance(value, str) else _found(value)


def _quoting(value: object, expected: object) -> str:
    """Return what quotation marks have to do with it: too many around a number, or none around a string."""
    if isinstance(value, str) and expected in (int, float, bool):
        return f"; write {value:.40} without quotation marks" if _UNQUOTED.fullmatch(value) else ""
    if expected in (str, Path) and isinstance(value, int | float) and not isinstance(value, bool):
        return "; write it in quotation marks"
    return ""


_NAMES: Mapping[Any, str] = {
    str: "a string",
    Path: "a path",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "an array [...]",
    dict: "a table",
}


def _name(expected: object) -> str:
    if expected in _NAMES:
        return _NAMES[expected]
    origin, arguments = get_origin(expected), get_args(expected)
    if origin is tuple:
        return "an array [...]"
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin in (Union, types.UnionType):
        return " or ".join(_name(choice) for choice in arguments if choice is not type(None))
    if is_dataclass(expected):
        return "a table"
    return _NAMES.get(getattr(expected, "__supertype__", None), f"a {getattr(expected, '__name__', expected)}")
