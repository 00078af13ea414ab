"""Pages in a real browser: what comes from data, models and endpoints is shown there and never run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cli_support import command, served

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine"),
]

RAN = "document.documentElement.setAttribute('data-ran',1)"
_PAYLOADS = [
    f"<script>{RAN}</script>",
    f'"><img src=x onerror="{RAN}">',
    f"'><svg onload={RAN}>",
    f"</title></style></svg><script>{RAN}</script>",
    f'javascript:{RAN} <a href="javascript:{RAN}">x</a><iframe src="javascript:parent.{RAN}"></iframe>',
]
_CSP = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


def opened(page: Path, folder: Path) -> str:
    """The document as the browser has it when its scripts, if it has any, have run."""
    assert BROWSER is not None
    line = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000"]
    line += [f"--user-data-dir={folder / 'profile'}", "--dump-dom", page.as_uri()]
    done = subprocess.run(line, capture_output=True, text=True, check=True, timeout=120)
    assert "</html>" in done.stdout
    return done.stdout


def has_run(document: str) -> bool:
    """Whether anything of ours was run."""
    return re.match(r"(?s)\s*(?:<!doctype[^>]*>)?\s*<html[^>]*data-ran", document, re.IGNORECASE) is not None


def without_policy(page: Path, folder: Path) -> Path:
    """The page without the policy that forbids scripts anyway: escaping has to hold alone."""
    text, count = _CSP.subn("", page.read_text())
    assert count == 1
    bare = folder / f"bare-{page.name}"
    bare.write_text(text)
    return bare


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Both pages, of a task and an input in which every name and text is hostile, on an endpoint that repeats them."""
    folder = tmp_path_factory.mktemp("pages")
    labels = [*_PAYLOADS, "plain"]
    named = f'"><img src=x onerror={RAN}>'
    task, data = folder / f"{named}.toml", folder / f"{named}.jsonl"
    task.write_text(f"instructions = {json.dumps(_PAYLOADS[0])}\nlabels = {json.dumps(labels)}\n")
    rows = [{"id": f"{n}{_PAYLOADS[n % 5]}", "text": f"{_PAYLOADS[n % 5]} {n}"} for n in range(60)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with served(labels=tuple(labels), seed=1, faults={"off_label": 0.3, "http_500": 0.1}) as (url, _):
        endpoint = ["--base-url", url, "--model", _PAYLOADS[1], "--price-input", "1", "--price-output", "1"]
        ran = command(
            "run", task, data, *endpoint, "--output", folder / "o.jsonl", "--report", folder / "report",
            "--attempts", "1", "--max-failed", "1",
        )  # fmt: skip
        assert ran.exit_code == 3, ran.output
        measured = command(
            "bench", task, data, *endpoint, "--output", folder / "bench.json", "--batch-sizes", "2",
            "--concurrency", "2", "--repeats", "1", "--no-open-loop", "--requests", "3", "--minutes", "0.3",
        )  # fmt: skip
        assert measured.exit_code == 0, measured.output
    return [folder / "report" / "report.html", folder / "bench.html"]


@pytest.mark.parametrize("number", [0, 1], ids=["report", "bench"])
def test_nothing_from_outside_runs_in_a_browser(number: int, pages: list[Path], tmp_path: Path) -> None:
    """Every text is shown as it is, with the policy of the page and without."""
    page = pages[number]
    for each in (page, without_policy(page, tmp_path)):
        document = opened(each, tmp_path)
        assert not has_run(document)
        assert "&lt;img src=x onerror" in document, "the texts are there"


@pytest.mark.parametrize("number", [0, 1], ids=["report", "bench"])
def test_the_policy_of_a_page_forbids_what_would_slip_through(number: int, pages: list[Path], tmp_path: Path) -> None:
    """A script in the page itself does not run; without the policy it does, so this test can see it."""
    page = pages[number]
    script = f"<script>{RAN}</script></body>"
    for each, expected in ((page, False), (without_policy(page, tmp_path), True)):
        spoiled = tmp_path / f"spoiled-{each.name}"
        spoiled.write_text(each.read_text().replace("</body>", script))
        assert has_run(opened(spoiled, tmp_path)) == expected
