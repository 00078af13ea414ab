"""matplotlib at work. Imported only where a report is written: it takes a third of a second and numpy."""

from __future__ import annotations

import threading
import warnings
from io import StringIO
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from engine.report.charts import inks
from engine.report.charts.plot import Draw
from engine.report.charts.svg import clean

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it is searched, read aloud, and in the reader's own font
    "svg.hashsalt": "report",
    "text.parse_math": False,  # a dollar in a label is a dollar
    "font.family": ["DejaVu Sans"],  # comes with the library, and is wider than most: what fits here fits there
    "font.size": 12.5,
    "axes.titlesize": 12.5,
    "axes.labelsize": 12.5,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "legend.fontsize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.edgecolor": inks.LINE,
    "axes.labelcolor": inks.SOFT,
    "axes.titlecolor": inks.SOFT,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": inks.LINE,
    "grid.linewidth": 0.8,
    "axes.formatter.useoffset": False,
    "xtick.major.pad": 6,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "xtick.labelcolor": inks.SOFT,
    "ytick.labelcolor": inks.SOFT,
    "text.color": inks.TEXT,
    "legend.frameon": False,
    "legend.labelcolor": inks.TEXT,
    "legend.borderpad": 0.0,
    "legend.borderaxespad": 0.1,
    "legend.handlelength": 1.1,
    "legend.columnspacing": 1.3,
    "lines.linewidth": 1.8,
    "patch.linewidth": 0.0,
    "hatch.linewidth": 0.0,
}
_MARGIN_IN = 4 / 72

_turn = threading.Lock()  # the library's settings are of the whole process


def svg(draw: Draw, *, width: int, height: int, narrow: bool, label: str) -> str:
    """A drawing of so many CSS pixels, as an element of the page."""
    with _turn, matplotlib.rc_context(), warnings.catch_warnings():
        # The reader's font draws the text, and has more glyphs than the one that it is measured with.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcdefaults()  # whatever the user's own matplotlibrc says
        matplotlib.rcParams.update(_SETTINGS)
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=_MARGIN_IN, h_pad=_MARGIN_IN))
        draw(figure, narrow)
        written = StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return clean(written.getvalue(), label)
