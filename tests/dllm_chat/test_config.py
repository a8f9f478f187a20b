from __future__ import annotations

from pathlib import Path

import pytest

from dllm_chat.config import MAX_FILE_BYTES, SETTINGS, BadConfiguration, Config, environment_name, load_config


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_without_a_file_the_defaults_count(file: Path) -> None:
    config = load_config(file, environ={})
    assert config == Config()
    assert config.linger_s == 20
    assert set(config.origin.values()) == {"default"}
    assert set(config.origin) == set(SETTINGS)


def test_flags_beat_environment_beats_file_beats_default(file: Path) -> None:
    file.write_text('linger_s = 1\nwallet = "from-file"\nlog_level = "debug"\n')
    config = load_config(
        file,
        flags={"linger_s": 3, "model": None},
        environ={"DLLM_LINGER_S": "2", "DLLM_WALLET": "from-environment", "DLLM_HOME": "/x", "OTHER": "y"},
    )
    assert (config.linger_s, config.wallet, config.log_level, config.model) == (
        3,
        "from-environment",
        "debug",
        "",
    )
    assert config.origin["linger_s"] == "flag --linger-s"
    assert config.origin["wallet"] == "environment DLLM_WALLET"
    assert config.origin["log_level"] == str(file)
    assert config.origin["model"] == "default"


def test_a_flag_that_was_not_typed_and_an_empty_variable_do_not_count(file: Path) -> None:
    file.write_text("linger_s = 7")
    config = load_config(file, flags={"linger_s": None}, environ={"DLLM_LINGER_S": ""})
    assert config.linger_s == 7


def test_the_process_environment_is_the_default(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLLM_AUTO_LOCK_S", "30")
    assert load_config(file).auto_lock_s == 30


def test_an_unknown_key_is_refused_with_the_nearest_one(file: Path) -> None:
    file.write_text("linger = 1")
    with pytest.raises(BadConfiguration, match="no setting 'linger'") as caught:
        load_config(file, environ={})
    assert caught.value.hint == "did you mean linger_s?"
    assert str(file) in caught.value.message


def test_an_unknown_key_like_nothing_lists_what_there_is(file: Path) -> None:
    file.write_text("[zzzzzzzzzz]\nqq = 1")
    with pytest.raises(BadConfiguration) as caught:
        load_config(file, environ={})
    assert "linger_s" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('linger_s = "1"', "linger_s is '1', a str; it must be a int"),
        ("linger_s = true", "a bool; it must be a int"),
        ("linger_s = -1", "linger_s is -1; it must be 0 to 86400"),
        ("linger_s = 86401", "must be 0 to 86400"),
        ("linger_s = 1.0", "a float; it must be a int"),
        ('keyring_backend = "kwallet"', "must be one of auto, os, file"),
        ("wallet = 1", "a int; it must be a str"),
        ("wallet = ", "is not TOML"),
        ("linger_s = 1\nlinger_s = 2", "is not TOML"),
    ],
)
def test_a_value_that_cannot_be_is_refused(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(BadConfiguration, match=message):
        load_config(file, environ={})


@pytest.mark.parametrize("text", ["ten", "-1", "1.5", "0x10", "١", "9" * 21])
def test_a_variable_that_is_no_number_is_refused(file: Path, text: str) -> None:
    with pytest.raises(BadConfiguration, match="DLLM_LINGER_S"):
        load_config(file, environ={"DLLM_LINGER_S": text})


def test_flags_are_checked_too(file: Path) -> None:
    with pytest.raises(BadConfiguration, match="--log-level"):
        load_config(file, flags={"log_level": "loud"}, environ={})
    with pytest.raises(BadConfiguration, match="no setting"):
        load_config(file, flags={"nonsense": 1}, environ={})


def test_files_that_are_no_text_too_long_or_a_folder_are_refused(file: Path, tmp_path: Path) -> None:
    file.write_bytes(b'wallet = "\xff"')
    with pytest.raises(BadConfiguration, match="not UTF-8 at byte 10"):
        load_config(file, environ={})
    file.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(BadConfiguration, match="longer than"):
        load_config(file, environ={})
    with pytest.raises(BadConfiguration, match="cannot be read"):
        load_config(tmp_path, environ={})


def test_no_setting_is_a_secret() -> None:
    assert not [name for name in SETTINGS if any(word in name for word in ("password", "seed", "mnemonic"))]
    assert environment_name("linger_s") == "DLLM_LINGER_S"
