"""Task files: a mistake names the file, the place and the way out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine import load_task as load_checked
from engine.adapters.task_file import load_task
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.task import Example

TASK = 'instructions = "Say which."\nlabels = ["a", "b"]\n'


def write(folder: Path, task: str | bytes = TASK, examples: str | bytes | None = None) -> str:
    """A task file, and beside it a file of examples that it names."""
    path = folder / "task.toml"
    if examples is not None:
        content = examples if isinstance(examples, bytes) else examples.encode()
        (folder / "examples.jsonl").write_bytes(content)
        task = f'{task if isinstance(task, str) else task.decode()}examples_file = "examples.jsonl"\n'
    path.write_bytes(task if isinstance(task, bytes) else task.encode())
    return str(path)


def problem(path: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_task(path)
    return str(caught.value)


def test_a_task_is_read(tmp_path: Path) -> None:
    """Labels, and what was left out at its default."""
    task = load_task(write(tmp_path))
    assert (task.instructions, task.labels, task.examples) == ("Say which.", ["a", "b"], [])


@pytest.mark.parametrize("task", ["\ufeff" + TASK, TASK.replace("\n", "\r\n")])
def test_a_file_from_windows_is_read(tmp_path: Path, task: str) -> None:
    """A byte order mark and CRLF are no part of the task."""
    assert load_task(write(tmp_path, task)).labels == ["a", "b"]


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ('instructions = "x"\nlabels = ["a"\n', "is not valid TOML: .*"),
        ('instructions = "x"\nlabels : ["a"]\n', r"is not valid TOML: .*at line 2, column \d+"),
        ('instructions = "x"\ninstructions = "y"\n', r"is not valid TOML: .*at line 2"),
        (b'instructions = "x"\nlabels = ["\xe9"]\n', "task.toml, line 2: not UTF-8"),
        ("a = " + "[" * 50_000, "is not valid TOML: "),
        ("a = " + "9" * 10_000, "is not valid TOML: "),
        (TASK + 'lables = ["c"]\n', "task.toml: unknown key 'lables'; did you mean 'labels'"),
        (TASK + "multiple = 3\n", "task.toml: key 'multiple': "),
        ("", "task.toml: .*instructions"),
    ],
    ids=["open", "colon", "twice", "latin-1", "deep", "huge", "typo", "type", "empty"],
)
def test_a_mistake_names_file_and_place(tmp_path: Path, task: str | bytes, said: str) -> None:
    """Line and column of what is no TOML, the key of what makes no sense; and never a stack trace."""
    path = write(tmp_path, task)
    with pytest.raises(ConfigError, match=said) as caught:
        load_task(path)
    assert path in str(caught.value)


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    """`annotate init` writes one; a folder is none."""
    assert "annotate init" in problem(str(tmp_path / "no.toml"))
    assert "is a folder" in problem(str(tmp_path))
    assert "cannot be read" in problem(write(tmp_path) + "/below")


def test_examples_are_read_from_beside_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path is relative to the task file, not to where one stands; examples of both places are taken together."""
    inline = '[[examples]]\ninput = "0"\noutput = "a"\n'
    lines = '{"input":"1","output":"b"}\n\n  \n{"input":{"x":1},"output":["a"]}'
    path = write(tmp_path, TASK, lines)
    Path(path).write_text(Path(path).read_text() + inline)
    monkeypatch.chdir("/")
    task = load_task(path)
    assert task.examples == [
        Example(input="0", output="a"),
        Example(input="1", output="b"),
        Example(input={"x": 1}, output=["a"]),
    ]
    assert task.examples_file is None


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (b'{"input":"1","output":"b"}\n{"input":"1"}\n', "line 2: .*missing required field `output`"),
        (b'{"input":"1","output":"b"}\r\n\r\nnot json\r\n', "line 3: .*malformed"),
        (b'{"input":1,"output":"b"}\n', r"line 1: .*got `int`.*\$\.input"),
        (b'{"input":"1","output":"b","ouput":"c"}\n', "line 1: .*unknown field `ouput`"),
        (b'{"input":"\\ud800","output":"b"}\n', "line 1: "),
        (b'{"input":"1","output":' + b"[" * 100_000 + b"\n", "line 1: "),
        (b'{"input":"1","output":"b"}\n{"input":"\xe9"}\n', "line 2: not UTF-8"),
    ],
    ids=["missing", "no json", "type", "typo", "half", "deep", "latin-1"],
)
def test_a_bad_example_names_its_line(tmp_path: Path, lines: bytes, said: str) -> None:
    """The file and the line as an editor counts them."""
    with pytest.raises(ConfigError, match=f"examples\\.jsonl, {said}"):
        load_task(write(tmp_path, TASK, lines))


@pytest.mark.parametrize(
    ("task", "line", "said"),
    [
        (TASK, '{"input":"1","output":"c"}', "'c' is not one of the labels"),
        (TASK + 'input = ["x"]\n', '{"input":{"x":"1"},"output":"a"}', "its input is a table"),
        (TASK + 'input = ["x", "y"]\n', '{"input":"1","output":"a"}', "its input should have the fields"),
    ],
    ids=["output", "table", "text"],
)
def test_an_example_that_the_task_does_not_allow_names_its_line(
    tmp_path: Path, task: str, line: str, said: str
) -> None:
    """It is good JSON, and would teach errors: of a file, its line is named; in the task, the task file."""
    right = '{"input":%s,"output":"b"}' % ('{"x":"1","y":"2"}' if '"y"' in task else '"1"')
    with pytest.raises(ConfigError, match=f"examples\\.jsonl, line 4: {said}"):
        load_checked(write(tmp_path, task, f"{right}\n\n{right}\n{line}\n{right}\n"))
    inline = '[[examples]]\ninput = "0"\noutput = "c"\n'
    with pytest.raises(ConfigError, match="task\\.toml: example 1: 'c' is not"):
        load_checked(write(tmp_path, TASK + inline))


def test_a_missing_examples_file_is_said(tmp_path: Path) -> None:
    """With its path."""
    path = write(tmp_path, TASK, b"")
    (tmp_path / "examples.jsonl").unlink()
    assert f"the examples file {tmp_path}/examples.jsonl cannot be read: No such file" in problem(path)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(), max_size=5))
def test_any_text_can_be_an_example(tmp_path: Path, texts: list[str]) -> None:
    """Line separators of Unicode within a text do not end its line."""
    lines = "\n".join(json.dumps({"input": text, "output": "a"}, ensure_ascii=False) for text in texts)
    assert [example.input for example in load_task(write(tmp_path, TASK, lines)).examples] == texts
