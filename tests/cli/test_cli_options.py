"""Options of `run` and the keys that go with them: a provider's key goes to that provider only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from cli_support import command, make_files

from engine.adapters.providers.known import PROVIDERS, find_key, provider_at
from engine.cli.options import Settings, check_key, run_options, run_settings
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.secrets import revealed


def settings_of(*words: str) -> Settings:
    """What these options come to."""
    found: list[Settings] = []

    @click.command()
    @run_options
    def probe(**options: Any) -> None:
        found.append(run_settings(options))

    probe.main(list(words), standalone_mode=False)
    return found[0]


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ["ANNOTATE_API_KEY", *(provider.key_variable for provider in PROVIDERS.values())]:
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_is_a_name_for_its_address(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--provider NAME` gives the address, and its own variable the key."""
    monkeypatch.setenv(PROVIDERS[name].key_variable, " its-key\n")
    settings = settings_of("--provider", name, "--model", "m")
    assert settings.endpoint is not None
    assert settings.endpoint.api_key is not None
    assert settings.endpoint.base_url == PROVIDERS[name].base_url
    assert settings.endpoint.api_key.reveal() == "its-key"
    assert settings.key_variable == PROVIDERS[name].key_variable


def test_our_own_variable_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """ANNOTATE_API_KEY is for the endpoint that is named, whichever it is."""
    monkeypatch.setenv("OPENAI_API_KEY", "theirs")
    monkeypatch.setenv("ANNOTATE_API_KEY", "ours")
    settings = settings_of("--base-url", "https://api.openai.com/v1", "--model", "m")
    assert settings.key_variable == "ANNOTATE_API_KEY"


@pytest.mark.parametrize(
    "base_url",
    [
        "http://localhost:8000/v1",
        "http://api.openai.com/v1",
        "https://api.openai.com.evil.example/v1",
        "https://evil.example/api.openai.com/v1",
        "https://eu.api.openai.com/v1",
        "https://xapi.openai.com/v1",
        "https://api.groq.com/openai/v1",
    ],
)
def test_a_providers_key_goes_nowhere_else(base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to a look-alike, not to another provider, and not over a connection that all can read."""
    monkeypatch.setenv("OPENAI_API_KEY", "theirs")
    settings = settings_of("--base-url", base_url, "--model", "m")
    assert settings.endpoint is not None
    assert settings.endpoint.api_key is None


def test_provider_beside_another_address_gets_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """With both, the address counts, and the key of the provider stays at home."""
    monkeypatch.setenv("MISTRAL_API_KEY", "theirs")
    settings = settings_of("--provider", "mistral", "--base-url", "http://127.0.0.1:9/v1", "--model", "m")
    assert settings.endpoint is not None
    assert (settings.endpoint.base_url, settings.endpoint.api_key) == ("http://127.0.0.1:9/v1", None)


def test_provider_is_found_by_its_host() -> None:
    """Port and case of the host do not matter, the host does."""
    found = provider_at("https://API.OpenAI.com:443/v1")
    assert found is not None
    assert found.name == "openai"
    assert provider_at("https://api.openai.com@evil.example/v1") is None


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_provider_without_a_key_is_refused_before_anything_is_opened(name: str, tmp_path: Path) -> None:
    """By name or by address: the variable is named, and nothing is made. To look at a prompt needs none."""
    files, out = make_files(tmp_path), tmp_path / "out.jsonl"
    for whom in (["--provider", name], ["--base-url", PROVIDERS[name].base_url]):
        refused = command("run", *files, *whom, "--model", "m", "--output", out)
        assert refused.exit_code == 2
        assert f"export {PROVIDERS[name].key_variable}=" in refused.stderr
        assert list(tmp_path.glob("out*")) == []
        assert command("run", *files, *whom, "--model", "m", "--show-prompt").exit_code == 0


@pytest.mark.parametrize(
    "words",
    [
        ["--base-url", "http://localhost:8000/v1"],
        ["--base-url", "https://llm.example/v1"],
        ["--provider", "openai", "--base-url", "http://127.0.0.1:9/v1"],
        ["--provider", "openai", "--header", "authorization=env:MY_HEADER"],
        ["--provider", "gemini", "--header", "x-goog-api-key=env:MY_HEADER"],
    ],
)
def test_no_key_is_asked_for_elsewhere(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Local servers want none, and a header may hold one."""
    monkeypatch.setenv("MY_HEADER", "Bearer sk")
    check_key(settings_of(*words, "--model", "m"))


def test_a_key_that_no_header_can_carry_is_told_and_not_shown() -> None:
    """A key pasted with a stray character is named by its variable, never repeated."""
    with pytest.raises(ConfigError, match="ANNOTATE_API_KEY") as raised:
        find_key("http://localhost/v1", {"ANNOTATE_API_KEY": "sk-“quoted”"})
    assert "quoted" not in str(raised.value)


def test_explicit_batch_size_is_not_cut(tmp_path: Path) -> None:
    """A batch size above the default of --max-batch-size is what was asked for."""
    packing = settings_of("--batch-size", "50").config.packing
    assert (packing.batch_size, packing.max_batch_size) == (50, 50)
    assert settings_of().config.packing.max_batch_size == 32


def test_a_header_takes_the_place_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is spelled, `--header authorization=...` makes no second header of that name."""
    monkeypatch.setenv("MY_HEADER", "Basic x")
    settings = settings_of("--base-url", "http://h/v1", "--model", "m", "--header", "authorization=env:MY_HEADER")
    assert settings.endpoint is not None
    assert {name: revealed(value) for name, value in settings.endpoint.headers.items()} == {"Authorization": "Basic x"}
    assert "Basic" not in repr(settings.endpoint.headers)  # what comes from elsewhere is a key, whatever its name
