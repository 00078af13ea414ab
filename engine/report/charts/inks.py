"""Colours of the plots. What is drawn carries stand-ins; in the page they are variables of its style sheet.

So one drawing serves light and dark, screen and paper.
"""

from __future__ import annotations

TEXT, SOFT, LINE, CARD = "#010001", "#010002", "#010003", "#010004"
BLUE, ORANGE, GREEN, RED = "#020001", "#020002", "#020003", "#020004"
PURPLE, TEAL, GREY, YELLOW = "#020005", "#020006", "#020007", "#020008"

VARIABLES = {
    TEXT: "--text",
    SOFT: "--soft",
    LINE: "--line",
    CARD: "--card",
    BLUE: "--blue",
    ORANGE: "--orange",
    GREEN: "--green",
    RED: "--red",
    PURPLE: "--purple",
    TEAL: "--teal",
    GREY: "--grey",
    YELLOW: "--yellow",
}
"""Stand-in -> variable of the style sheet."""

HELD_BY = {"rpm": BLUE, "tpm": PURPLE, "window": ORANGE, "pause": RED}
"""What holds requests back -> its colour, the same in every plot."""

CYCLE = (RED, ORANGE, PURPLE, TEAL, YELLOW, GREY)
"""For causes of trouble, the commonest first."""
