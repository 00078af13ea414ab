"""`annotate report`: draw the page of a report or a bench again, from its figures."""

from __future__ import annotations

import click

from engine.bench.page import html as bench_page
from engine.cli.exits import ALL_ANNOTATED
from engine.report.summary import draw_again


@click.command("report")
@click.argument("report")
def report_command(report: str) -> int:
    """Write report.html anew from report.json: after an update, or where the plots could not be drawn.

    REPORT is the folder that --report named, or the report.json in it (report-1.json is of the run before); or the
    bench.json of `annotate bench`, or a folder with one and no report.json.
    """
    click.echo(bench_page.draw_again(report) if bench_page.is_bench(report) else draw_again(report))
    return ALL_ANNOTATED
