"""`annotate tune`, against a simulated endpoint on a loopback port."""

from __future__ import annotations

import json
import signal
import stat
from pathlib import Path

import pytest
from cli_support import TASK, command, ended, served, start_command, wait_until

from engine.run.tasks import load_task
from engine.testing.simulator.answers import stable_label

LABELS = ["red", "green", "blue"]
SMALL = 'batch_size = [1, 10]\nform = ["compact"]\nexamples = [0]\n'


def make_gold(folder: Path, count: int) -> tuple[str, str, str]:
    """A task, gold that the simulated model answers rightly, and a small space."""
    task, gold, space = folder / "task.toml", folder / "gold.jsonl", folder / "space.toml"
    task.write_text(TASK)
    space.write_text(SMALL)
    rows = [{"id": f"r{n}", "text": f"text number {n}", "label": stable_label(f"text number {n}", LABELS)}
            for n in range(count)]  # fmt: skip
    gold.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(task), str(gold), str(space)


def test_the_choice_is_a_task_file_and_options_that_run_takes(tmp_path: Path) -> None:
    """The table, the sentence and the written task; what is printed to be pasted works; nothing is paid for twice."""
    task, gold, space = make_gold(tmp_path, 200)
    tuned, report = tmp_path / "tuned.toml", tmp_path / "report"
    with served() as (url, endpoint):
        where = ("--base-url", url, "--model", "m")
        words = ("tune", task, gold, *where, "--space", space, "--output", tuned, "--report", report)
        done = command(*words)
        assert done.exit_code == 0, done.output
        requests = endpoint.ledger.requests
        assert command(*words).exit_code == 0
        assert endpoint.ledger.requests == requests
        options = done.stdout.split("LABELS.jsonl ", 1)[1].split(" and your")[0].split()
        out = tmp_path / "out.jsonl"
        assert command("run", tuned, gold, "--output", out, *options, *where, "--limit", "20").exit_code == 0
    assert "chosen: 10 a request" in done.stdout
    assert load_task(str(tuned)) == load_task(task)
    assert "# chosen: 10 a request" in tuned.read_text()
    document = json.loads((report / "tune.json").read_text())
    assert document["rows"][document["chosen"]]["setting"]["batch_size"] == 10
    assert document["spent_tokens"] < document["grid_tokens"]
    files = [tuned, *report.iterdir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_too_little_gold_is_said(tmp_path: Path) -> None:
    """Forty records can't show three points: not distinguishable, and how many could."""
    task, gold, space = make_gold(tmp_path, 40)
    with served(behaviour="changes") as (url, _):
        done = command("tune", task, gold, "--base-url", url, "--model", "m", "--space", space)
    assert done.exit_code == 0, done.output
    assert "not distinguishable" in done.stdout
    assert "gold records" in done.stdout


def test_a_dry_run_sends_nothing(tmp_path: Path) -> None:
    """It says what may be spent, and makes no file."""
    task, gold, space = make_gold(tmp_path, 40)
    with served() as (url, endpoint):
        done = command("tune", task, gold, "--base-url", url, "--model", "m", "--space", space, "--dry-run")
        assert endpoint.ledger.requests == 0
    assert done.exit_code == 0, done.output
    assert "tokens at the most, 0 of them spent" in done.stderr
    assert "no bound; what a model thinks comes on top" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gold.jsonl", "space.toml", "task.toml"]


def test_gold_that_cannot_be_used_stops_it_before_anything_is_sent(tmp_path: Path) -> None:
    """Also a dry run, with how many, where and why, and exit 2; who insists goes on without, and reads that first."""
    task, gold, space = make_gold(tmp_path, 40)
    rows = [json.loads(line) for line in Path(gold).read_text().splitlines()]
    for row in rows[10:15]:
        row["label"] = "pink"
    Path(gold).write_text("".join(json.dumps(row) + "\n" for row in rows))
    with served() as (url, endpoint):
        words = ("tune", task, gold, "--base-url", url, "--model", "m", "--space", space)
        for more in ((), ("--dry-run",)):
            refused = command(*words, *more)
            assert refused.exit_code == 2, refused.output
            assert "has 5 bad gold records of 40; nothing was sent" in refused.stderr
            assert "line 11" in refused.stderr
            assert "--on-bad-record fail-record" in refused.stderr
        dry = command(*words, "--dry-run", "--on-bad-record", "fail-record")
        assert dry.exit_code == 0, dry.output
        assert "5 of 40 gold records are left out (line 11" in dry.stderr
        assert endpoint.ledger.requests == 0
        done = command(*words, "--on-bad-record", "fail-record")
        assert done.exit_code == 0, done.output
        assert done.stderr.index("are left out") < done.stderr.index(" left  to record")


def test_a_budget_stops_it_and_it_can_go_on(tmp_path: Path) -> None:
    """Exit 4, what there is printed and written, and the same command goes on."""
    task, gold, space = make_gold(tmp_path, 200)
    with served() as (url, _):
        words = ("tune", task, gold, "--base-url", url, "--model", "m", "--space", space)
        done = command(*words, "--budget-tokens", "15000")
        assert done.exit_code == 4, done.output
        assert "stopped early" in done.stdout
        assert command(*words).exit_code == 0


def test_the_users_own_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """module:function beside the data; what cannot be imported is told."""
    task, gold, space = make_gold(tmp_path, 60)
    (tmp_path / "my_measure.py").write_text(
        "def half(gold, answer):\n    return 0.5 * (gold == answer)\n"
        "def three(gold, answer):\n    return 3.0\n"
        "def fails(gold, answer):\n    return gold['colour']\n"
        "def words(gold, answer):\n    return 'good'\n"
    )
    monkeypatch.chdir(tmp_path)
    with served() as (url, _):
        where = ("tune", task, gold, "--base-url", url, "--model", "m", "--space", space, "--metric")
        done = command(*where, "my_measure:half")
        assert done.exit_code == 0, done.output
        assert "my_measure:half 0.500" in done.stdout
        for metric, said in (
            ("my_measure:none", "cannot be imported"),
            ("f2", "known: accuracy"),
            ("my_measure:three", "gives 3.0; it is to be a number from 0 to 1"),
            ("my_measure:fails", "fails: TypeError: "),
            ("my_measure:words", "fails: ValueError: "),
        ):
            failed = command(*where, metric)
            assert failed.exit_code == 2, failed.output
            assert said in failed.stderr
            assert "bug in annotation-engine" not in failed.stderr


def test_mistakes_are_told_in_one_line(tmp_path: Path) -> None:
    """No gold field, a space that is none, the task as the output, no key of a provider."""
    task, gold, _ = make_gold(tmp_path, 10)
    (tmp_path / "bad.toml").write_text("batch = [1]")
    (tmp_path / "other.jsonl").write_text('{"text": "t", "truth": "red"}\n')
    where = ("--base-url", "http://127.0.0.1:9/v1", "--model", "m")
    for words, said in (
        ((task, tmp_path / "other.jsonl", *where), "--gold-field"),
        ((task, gold, *where, "--gold-field", "none"), "no field 'none'"),
        ((task, gold, *where, "--space", tmp_path / "bad.toml"), "unknown key 'batch'"),
        ((task, gold, *where, "--output", task), "is the task itself"),
        ((task, gold, *where, "--budget-usd", "1"), "needs prices"),
        ((task, tmp_path / "none.jsonl", *where), "no such file"),
    ):
        done = command("tune", *words)
        assert done.exit_code == 2, (words, done.output)
        assert said in done.stderr, (words, done.stderr)
        assert "Traceback" not in done.stderr


def test_an_endpoint_that_is_not_there_is_no_result(tmp_path: Path) -> None:
    """Nothing was answered: exit 4, the reason, and no task file."""
    task, gold, space = make_gold(tmp_path, 10)
    with served(api_key="right") as (url, _):
        done = command("tune", task, gold, "--base-url", url, "--model", "m", "--space", space)
    assert done.exit_code == 4, done.output
    assert not (tmp_path / "task.tuned.toml").exists()


def test_gold_with_half_a_surrogate_pair_is_left_out(tmp_path: Path) -> None:
    """In the text or in the label, it costs its own record and is told."""
    task, gold, space = make_gold(tmp_path, 40)
    with Path(gold).open("a") as stream:
        stream.write('{"id":"x","text":"\\ud800","label":"red"}\n{"id":"y","text":"y","label":"\\udfff"}\n')
    with served() as (url, _):
        done = command("tune", task, gold, "--base-url", url, "--model", "m", "--space", space, "--dry-run",
                       "--on-bad-record", "fail-record")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "40 gold records" in done.output


def test_a_choice_that_asks_variables_apart_is_one_task_file_for_each_run(tmp_path: Path) -> None:
    """Each is written, and what is printed to be pasted runs; it says that several runs have to be joined."""
    task, gold, space, tuned = (tmp_path / name for name in ("task.toml", "gold.jsonl", "space.toml", "tuned.toml"))
    task.write_text(
        'instructions = "Say."\n[fields.colour]\nlabels = ["red", "green"]\n[fields."the tone"]\nlabels = ["calm"]\n'
    )
    space.write_text('batch_size = [5]\nform = ["compact"]\nexamples = [0]\nvariables = ["one-by-one"]\n')
    rows = [{"id": n, "text": f"text {n}", "output": {"colour": "red", "the tone": "calm"}} for n in range(20)]
    gold.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with served() as (url, _):
        where = ("--base-url", url, "--model", "m")
        done = command("tune", task, gold, *where, "--space", space, "--output", tuned)
        assert done.exit_code == 0, done.output
        assert not tuned.exists()
        assert "it takes 2 runs" in done.stdout
        assert "accuracy of each variable" in done.stdout
        for name, field in (("colour", "colour"), ("the_tone", "the tone")):
            path, out = tmp_path / f"tuned.{name}.toml", tmp_path / f"LABELS.{name}.jsonl"
            assert f"{path} INPUT --output LABELS.{name}.jsonl --batch-size 5" in done.stdout
            ran = command("run", path, gold, "--output", out, "--batch-size", "5", *where)
            assert ran.exit_code == 0, ran.output
            assert {tuple(json.loads(line)["output"]) for line in out.read_text().splitlines()} == {(field,)}


def test_ctrl_c_ends_in_order_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """Exit 4; what was in flight is answered and kept; no task file of half a search; then the rest is asked."""
    task, gold, space = make_gold(tmp_path, 60)
    with served() as (url, endpoint):
        where = ("--base-url", url, "--model", "m", "--space", space)
        process = start_command("tune", task, gold, *where, "--rpm", "120")  # half a minute, but for the signal
        wait_until(lambda: endpoint.ledger.requests >= 5)
        process.send_signal(signal.SIGINT)
        code, out, err = ended(process)
        assert code == 4, err
        assert "stopping: waiting for answers in flight" in err
        assert "the same command goes on" in (out + err).lower()
        assert "Traceback" not in err
        assert endpoint.ledger.in_flight == 0
        assert not (tmp_path / "task.tuned.toml").exists()
        paid = endpoint.ledger.prompt_tokens + endpoint.ledger.completion_tokens
        done = command("tune", task, gold, *where)
        assert done.exit_code == 0, done.output
    spent = int(done.stderr.split(" of them spent by earlier runs")[0].rsplit(" ", 1)[1].replace(",", ""))
    assert spent == paid
