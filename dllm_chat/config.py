"""Settings: flags > environment (``DLLM_…``) > ``config.toml`` > defaults, each with where it came from."""

from __future__ import annotations

import dataclasses
import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from dllm_protocol.errors import UsageRefused

MAX_FILE_BYTES = 256 * 1024


class BadConfiguration(UsageRefused):
    """A setting that we do not know, or a value that it cannot have."""

    code = "E_CONFIG"


@dataclasses.dataclass(frozen=True, slots=True)
class Bounds:
    """What a setting may be."""

    help: str
    choices: tuple[str, ...] = ()
    minimum: int = 0
    maximum: int = 0


def _setting(
    default: Any, description: str, *, choices: tuple[str, ...] = (), minimum: int = 0, maximum: int = 0
) -> Any:
    bounds = Bounds(description, choices, minimum, maximum)
    return dataclasses.field(default=default, metadata={"bounds": bounds})


@dataclasses.dataclass(frozen=True, slots=True)
class Config:
    """The settings in force. ``origin`` maps each name to where its value was found."""

    wallet: str = _setting("", "name of the wallet to use; empty: the default one")
    account: int = _setting(0, "index of the account to use", maximum=2**31 - 1)
    keyring_backend: str = _setting(
        "auto", "where the chat key's wrapping key is kept", choices=("auto", "os", "file")
    )
    auto_lock_s: int = _setting(600, "seconds without input after which the wallet locks", maximum=86_400)
    linger_s: int = _setting(20, "seconds the embedded network stays after its last user", maximum=86_400)
    model: str = _setting("", "name of the model to ask; empty: the network's first")
    model_file: str = _setting("", "GGUF file to contribute; empty: the model in the package")
    log_level: str = _setting(
        "warning", "how much is written to the log", choices=("debug", "info", "warning", "error")
    )
    relay: str = _setting(
        "", "relay through which people are invited and join, and a worker serves, wss://HOST; empty: none"
    )
    speculation: str = _setting(
        "on", "whether rows are asked for on a guess where that saves time", choices=("on", "off")
    )
    origin: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False)


SETTINGS: Mapping[str, dataclasses.Field[Any]] = {
    field.name: field for field in dataclasses.fields(Config) if field.name != "origin"
}


def environment_name(setting: str) -> str:
    """``linger_s`` → ``DLLM_LINGER_S``."""
    return "DLLM_" + setting.upper()


def load_config(
    file: Path, *, flags: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> Config:
    """Read and check the settings.

    Args:
        file: the TOML file; absent is the same as empty.
        flags: settings typed on the command line; None values were not typed.
        environ: the environment, the process's own by default.

    Raises:
        BadConfiguration: unknown key (with the nearest known one), wrong type, out of bounds, broken TOML.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, object] = {}
    origin = dict.fromkeys(SETTINGS, "default")
    for name, value in _read_file(file).items():
        _refuse_unknown(name, str(file))
        values[name] = check_value(name, value, str(file))
        origin[name] = str(file)
    for name in SETTINGS:
        variable = environment_name(name)
        text = environ.get(variable, "")
        if text:
            values[name] = check_value(name, _parse_text(name, text, variable), variable)
            origin[name] = f"environment {variable}"
    for name, value in (flags or {}).items():
        if value is None:
            continue
        flag = "--" + name.replace("_", "-")
        _refuse_unknown(name, flag)
        values[name] = check_value(name, value, flag)
        origin[name] = f"flag {flag}"
    return Config(**cast(dict[str, Any], values), origin=origin)


def check_value(name: str, value: object, source: str) -> object:
    """``value`` if the setting may have it.

    Raises:
        BadConfiguration: wrong type, out of bounds or not among the choices.
    """
    field = SETTINGS[name]
    bounds = cast(Bounds, field.metadata["bounds"])
    wanted = type(field.default)
    if type(value) is not wanted:
        raise BadConfiguration(
            f"{source}: {name} is {value!r}, a {type(value).__name__}; it must be a {wanted.__name__}",
            hint=bounds.help,
        )
    if bounds.choices and value not in bounds.choices:
        raise BadConfiguration(
            f"{source}: {name} is {value!r}; it must be one of {', '.join(bounds.choices)}", hint=bounds.help
        )
    if isinstance(value, int) and not bounds.minimum <= value <= bounds.maximum:
        raise BadConfiguration(
            f"{source}: {name} is {value}; it must be {bounds.minimum} to {bounds.maximum}", hint=bounds.help
        )
    return value


def _read_file(file: Path) -> dict[str, object]:
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BadConfiguration(f"{file} cannot be read: {error.strerror}") from error
    if len(raw) > MAX_FILE_BYTES:
        raise BadConfiguration(f"{file} is longer than {MAX_FILE_BYTES} bytes")
    try:
        return tomllib.loads(raw.decode())
    except UnicodeDecodeError as error:
        raise BadConfiguration(f"{file} is not UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise BadConfiguration(
            f"{file} is not TOML: {error}", hint='write lines such as wallet = "main"'
        ) from error


def _refuse_unknown(name: str, source: str) -> None:
    if name in SETTINGS:
        return
    near = difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0.5)
    raise BadConfiguration(
        f"{source}: there is no setting {name[:80]!r}",
        hint=f"did you mean {near[0]}?" if near else f"known: {', '.join(SETTINGS)}",
    )


def _parse_text(name: str, text: str, variable: str) -> object:
    """The environment holds text only; integers are read from it."""
    if not isinstance(SETTINGS[name].default, int):
        return text
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise BadConfiguration(f"{variable} is {text[:80]!r}; it must be a whole number")
    return int(text)
