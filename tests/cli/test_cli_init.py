"""`annotate init`: a task file that works as it is."""

from __future__ import annotations

import json
from pathlib import Path

from cli_support import command

from engine import load_task


def test_init_writes_a_task_that_loads(tmp_path: Path) -> None:
    """The file loads as it is, knows the labels of the sample, and the next command is printed."""
    data, task = tmp_path / "reviews.jsonl", tmp_path / "task.toml"
    rows = [{"id": n, "text": f"a long text about thing {n}", "label": ["good", "bad"][n % 2]} for n in range(300)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = command("init", data, "--output", task)
    assert result.exit_code == 0, result.output
    assert sorted(load_task(str(task)).labels) == ["bad", "good"]
    assert f"annotate run {task} {data} --show-prompt" in result.stdout
    assert command("run", task, data, "--show-prompt").exit_code == 0


def test_init_replaces_nothing_unless_told(tmp_path: Path) -> None:
    """A task file is work: it is replaced with --force only."""
    data, task = tmp_path / "d.jsonl", tmp_path / "t.toml"
    data.write_text('{"text": "one"}\n')
    task.write_text("mine")
    refused = command("init", data, "--output", task)
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert task.read_text() == "mine"
    assert command("init", data, "--output", task, "--force").exit_code == 0
    assert load_task(str(task)).labels


def test_init_of_data_that_cannot_be_read(tmp_path: Path) -> None:
    """No record to be read is a user's mistake; an empty file gives the bare form."""
    data, task = tmp_path / "d.jsonl", tmp_path / "t.toml"
    data.write_text("no\nrecords\n")
    result = command("init", data, "--output", task)
    assert result.exit_code == 2
    assert "line 1" in result.stderr
    assert not task.exists()
    data.write_text("")
    assert command("init", data, "--output", task).exit_code == 0
    assert load_task(str(task)).labels
    assert command("init", data, "--output", tmp_path / "no" / "t.toml").exit_code == 2
