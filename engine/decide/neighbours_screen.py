"""Texts that speak to the model about the other items, or about its instructions. See docs/design/neighbours.md.

A match is a suspicion and nothing more: such a record is asked apart from the others, and otherwise like them. The list
is short and public, so whoever knows it can word around it; what it spares is the common and the lazy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from engine.vocabulary.values import Input

_VERBS = (
    r"label|mark|classif\w+|categori[sz]e|tag|rate|annotate|answer|output|return|assign|code|treat|set|score|judge|give"
)
_MANY = r"all|every|each|any|both|everything|(?:the )?(?:other|others|rest|remaining|following|next|previous|preceding)"
_ITEMS = r"items?|inputs?|records?|entries|entry|texts?|documents?|results?|answers?|labels?|examples?|batch"

PATTERNS: Mapping[str, str] = {
    "forget": (
        r"\b(?:ignore|disregard|forget|override|bypass|do not follow|don't follow)\b.{0,40}"
        r"\b(?:instructions?|prompts?|rules|guidelines|directions|the above|everything above|all previous)\b"
    ),
    "all alike": rf"\b(?:{_VERBS})\b.{{0,20}}\b(?:{_MANY})\b.{{0,24}}\b(?:{_ITEMS})\b",
    "all are": (
        rf"\b(?:{_MANY})\b.{{0,24}}\b(?:{_ITEMS})\b.{{0,24}}"
        r"\b(?:must|should|shall|have to|are to|is to|gets?)\b"
    ),
    "new orders": (
        r"\b(?:new|updated|changed|revised|real|actual|system|developer|admin\w*) (?:instructions?|prompt)\b"
        r"|\b(?:note|notice|message|order|instructions?) (?:to|for) (?:the |an? |all )?"
        r"(?:model|ai|llm|assistant|annotators?|classifier|labell?er)s?\b"
        r"|\byou are (?:now )?(?:an? |the )?(?:ai|llm|language model|assistant|classifier|annotator)\b"
    ),
    "our format": r"[\"']results[\"']\s*:\s*\[|[\"']id[\"']\s*:.{0,60}[\"']output[\"']\s*:",
    "roles": (
        r"<[|｜]|\[/?inst\]|<</?sys>>|</?(?:system|assistant|start_of_turn|end_of_turn)>"
        r"|^#+ ?(?:instruction|response)s?\b"
    ),
}
"""Kind -> pattern, searched in the text without its case; the dot spans line ends."""

_ITEM_HINTS = (
    "item", "input", "record", "entr", "text", "document", "result", "answer", "label", "example", "batch",
)  # fmt: skip
_HINTS: Mapping[str, tuple[str, ...]] = {
    "forget": ("instruct", "prompt", "rules", "guideline", "directions", "the above", "everything above", "previous"),
    "all alike": _ITEM_HINTS,
    "all are": _ITEM_HINTS,
    "new orders": ("instruct", "prompt", " model", " ai", "llm", "assistant", "annotator", "classifier", "labeller"),
    "our format": ("output", "results"),
    "roles": ("<|", "<｜", "inst]", "sys>", "system>", "assistant>", "_of_turn>", "#"),
}
"""Kind -> what every match holds. Most texts hold none of it, and substrings are found in a fiftieth of the time."""

_SCREEN = [(_HINTS[kind], re.compile(pattern, re.DOTALL | re.MULTILINE).search) for kind, pattern in PATTERNS.items()]


def speaks_of_others(value: Input) -> bool:
    """Whether an input matches the screen."""
    return any(map(_matches, _texts(value)))


def _matches(text: str) -> bool:
    folded = text.casefold()
    return any(any(hint in folded for hint in hints) and search(folded) for hints, search in _SCREEN)


def _texts(value: object) -> list[str]:
    """Every string of an input, however deep; names of fields are the user's own."""
    found: list[str] = []
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            found.append(one)
        elif isinstance(one, dict):
            left.extend(one.values())
        elif isinstance(one, list | tuple):
            left.extend(one)
    return found
