"""Configuration files are read strictly: every refusal names the file, the place and the remedy."""

import os
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpriv import settings
from fedpriv.errors import ConfigError, UsageError
from fedpriv.ids import WorkerName


@dataclass(frozen=True, slots=True)
class Engine:
    cylinders: int
    litres: float = 1.0

    def __post_init__(self):
        if self.cylinders < 1:
            raise UsageError("cylinders must be 1 or more")


@dataclass(frozen=True, slots=True)
class Car:
    LATER: ClassVar[dict[str, str]] = {"wings": "this version does not fly"}
    name: WorkerName
    electric: bool = False
    doors: int | tuple[str, ...] = 4
    colour: Literal["red", "blue"] = "red"
    manual: Path | None = None
    span: tuple[float, float] = (0.0, 1.0)
    engine: Engine | None = None
    spare: tuple[Engine, ...] = field(default=(), metadata=settings.key("spares"))
    radio: str = field(default="", metadata=settings.key("radio", parse=settings.address))


def read(**given):
    return settings.read(given, Car, where="car.toml")


def test_every_kind_of_value_is_read():
    car = read(
        name="beetle",
        electric=True,
        doors=["left", "right"],
        colour="blue",
        manual="docs/manual.pdf",
        span=[1, 2.5],
        engine={"cylinders": 4, "litres": 2},
        spares=[{"cylinders": 1}],
        radio="[::1]:7443",
    )
    assert car == Car(
        WorkerName("beetle"),
        True,
        ("left", "right"),
        "blue",
        Path("docs/manual.pdf"),
        (1.0, 2.5),
        Engine(4, 2.0),
        (Engine(1),),
        "[::1]:7443",
    )
    assert isinstance(car.engine.litres, float)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "car.toml: 'name' is missing; add it as a string"),
        ({"nmae": "x"}, "car.toml: 'nmae' is no key here (did you mean 'name'?); it takes name, electric"),
        ({"name": "x", "wings": 2}, "car.toml: 'wings' is refused: this version does not fly"),
        ({"name": 3}, "car.toml name must be a string, not a whole number (3)"),
        ({"name": "x", "electric": 1}, "car.toml electric must be true or false, not a whole number (1)"),
        ({"name": "x", "doors": True}, "car.toml doors must be a whole number or an array [...], not true"),
        (
            {"name": "x", "doors": ["a", 3]},
            "car.toml doors[2] must be a string, not a whole number (3); write it in quotation",
        ),
        (
            {"name": "x", "electric": "true"},
            "car.toml electric must be true or false, not a string ('true'); write true w",
        ),
        ({"name": "x", "electric": "yes"}, "car.toml electric must be true or false, not a string ('yes')"),
        ({"name": date(2026, 1, 2)}, "car.toml name must be a string, not a date or time (2026-01-02)"),
        ({"name": {"first": 1}}, "car.toml name must be a string, not a table with 'first'"),
        (
            {"name": "x", "colour": 1 << 70},
            "car.toml colour must be one of 'red', 'blue', not a whole number of more than",
        ),
        ({"name": "x", "doors": 2.0}, "car.toml doors must be a whole number or an array [...], not a number (2.0)"),
        (
            {"name": "x", "colour": "bleu"},
            "car.toml colour must be one of 'red', 'blue', not 'bleu' (did you mean 'blue'?)",
        ),
        ({"name": "x", "colour": ["red"]}, "car.toml colour must be one of 'red', 'blue', not an array of 1 item"),
        (
            {"name": "x", "manual": 7},
            "car.toml manual must be a path, not a whole number (7); write it in quotation marks",
        ),
        ({"name": "x", "span": [1.0]}, "car.toml span must have 2 items, not 1"),
        (
            {"name": "x", "span": [1.0, "2"]},
            "car.toml span[2] must be a number, not a string ('2'); write 2 without quotation marks",
        ),
        ({"name": "x", "engine": 4}, "car.toml engine must be a table, not a whole number (4)"),
        ({"name": "x", "engine": {"cylinder": 4}}, "car.toml [engine]: 'cylinder' is no key here (did you mean"),
        ({"name": "x", "engine": {"cylinders": 0}}, "car.toml [engine]: cylinders must be 1 or more"),
        ({"name": "x", "spares": [{"cylinders": 1}, {}]}, "car.toml [[spares]] 2: 'cylinders' is missing"),
        ({"name": "x", "spares": ["big"]}, "car.toml spares[1] must be a table, not a string ('big')"),
        ({"name": "x", "spares": {"cylinders": 1}}, "car.toml spares must be an array [...], not a table"),
        ({"name": "x", "radio": "somewhere"}, "car.toml radio must be a host and a port from 1 to 65535"),
        (
            {"name": "x", "radio": "localhost"},
            "car.toml radio must be a host and a port from 1 to 65535, such as 'coordin",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_place_and_the_remedy(given, message):
    with pytest.raises(ConfigError) as refusal:
        read(**given)
    assert str(refusal.value).startswith(message)


@dataclass(frozen=True, slots=True)
class Strict:
    colour: Literal["red", "blue"]
    doors: int | tuple[str, ...]
    engine: Engine
    owner: WorkerName


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("colour", "one of 'red', 'blue'"),
        ("doors", "a whole number or an array [...]"),
        ("engine", "a table"),
        ("owner", "a string"),
    ],
)
def test_a_missing_key_says_what_belongs_there(key, expected):
    whole = {"colour": "red", "doors": 2, "engine": {"cylinders": 2}, "owner": "bob"}
    with pytest.raises(ConfigError) as refusal:
        settings.read({name: value for name, value in whole.items() if name != key}, Strict, where="car.toml")
    assert str(refusal.value) == f"car.toml: {key!r} is missing; add it as {expected}"


@pytest.mark.parametrize("engine", [{"cylinders": 1, "litres": 10**400}, {"cylinders": 1 << 70}])
def test_a_number_that_no_float_or_64_bits_hold_is_refused(engine):
    with pytest.raises(ConfigError, match="must be a"):
        settings.read(engine, Engine, where="car.toml")


def test_a_long_value_is_cut_in_the_refusal():
    with pytest.raises(ConfigError) as refusal:
        read(name="x", electric="y" * 10_000)
    assert len(str(refusal.value)) < 200


def test_what_the_caller_has_read_is_neither_missing_nor_a_key():
    engine = settings.read({}, Engine, where="x", parsed={"cylinders": 3})
    assert engine == Engine(3)
    with pytest.raises(ConfigError, match="'cylinders' is no key here"):
        settings.read({"cylinders": 4}, Engine, where="x", parsed={"cylinders": 3})


@pytest.mark.parametrize("value", ["localhost:1", "coordinator-1.example:65535", "10.0.0.1:7443", "[2001:db8::1]:443"])
def test_addresses_are_a_host_and_a_port(value):
    assert settings.address(value, "x") == value


@pytest.mark.parametrize(
    "value", ["localhost", ":7443", "a:0", "a:65536", "::1:80", "http://a:80", "a b:80", "a:80\n", 80]
)
def test_what_is_no_address_is_refused(value):
    with pytest.raises(ConfigError, match="such as 'coordinator"):
        settings.address(value, "x")


def test_port_zero_is_for_listening_only():
    assert settings.listening_address("127.0.0.1:0", "x") == "127.0.0.1:0"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"car.toml does not exist; check the path"):
        settings.load(tmp_path / "car.toml", Car)


def test_a_folder_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ConfigError, match="is a folder, a pipe or a device; name a file"):
            settings.parse(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'name = "x"\nname = = 2\n', "line 2"),
        (b'name = "x"\nname = "y"\n', "line 2"),
        (b"x = " + b"1" * 5000, "is not valid TOML"),
        (b'name = "\xff"', "is not UTF-8 text"),
        (b"x = " + b"[" * 100_000, "nests too deeply"),
        (b"#" * (settings.LARGEST_FILE + 1), "is it a configuration file"),
    ],
)
def test_a_file_that_is_not_toml_is_refused(tmp_path, content, message):
    path = tmp_path / "car.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        settings.load(path, Car)


TOML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["name", "electric", "doors", "colour", "manual", "span", "engine", "spares", "radio", "wheels"])


@given(st.dictionaries(KEYS, TOML_VALUES))
def test_any_mapping_is_read_or_refused_with_an_error_of_ours(given):
    try:
        read = settings.read(given, Car, where="car.toml")
    except ConfigError as error:
        read = error
    assert isinstance(read, Car) or str(read).startswith("car.toml")
