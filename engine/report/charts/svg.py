"""From matplotlib's SVG to one that may stand in the page: shapes and text, and nothing that refers to anything.

What is not on the lists below is left out, whatever version of the library wrote it: a report shows texts from outside.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree as Xml

from engine.report.charts.inks import VARIABLES

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_SHAPES = frozenset({"g", "path", "rect", "text", "tspan"})
_ATTRIBUTES = frozenset({"d", "x", "y", "width", "height", "transform", "style"})
_STYLES = frozenset(
    {
        "fill", "fill-opacity", "stroke", "stroke-width", "stroke-opacity", "stroke-dasharray", "stroke-dashoffset",
        "stroke-linecap", "stroke-linejoin", "opacity", "font-size", "font-weight", "text-anchor",
    }
)  # fmt: skip
_LONG = re.compile(r"-?\d+\.\d{2,}")
_FONT = re.compile(r"(?:(bold|[67]00) )?([\d.]+)px")


def clean(drawn: str, label: str) -> str:
    """The drawing as an element of the page.

    :param drawn: as matplotlib wrote it.
    :param label: what it shows, for whoever does not see it.
    """
    root = Xml.fromstring(drawn)  # noqa: S314 - our own library's output, and expat bounds what entities may do
    shared = {element.get("id"): element for element in root.iter(f"{_SVG}path") if element.get("id")}
    width, height = (float(size) for size in root.get("viewBox", "0 0 0 0").split()[2:])
    page = Xml.Element("svg", {"viewBox": f"0 0 {width:g} {height:g}", "role": "img", "aria-label": label})
    page.extend(_shapes(root, shared))
    return Xml.tostring(page, encoding="unicode")


def _shapes(parent: Xml.Element, shared: dict[str | None, Xml.Element]) -> Iterator[Xml.Element]:
    for element in parent:
        name = element.tag.removeprefix(_SVG)
        if name == "use":
            yield from _copied(element, shared)
        elif name in _SHAPES:
            made = Xml.Element(name, _attributes(element))
            made.text = element.text if name in {"text", "tspan"} else None
            made.extend(_shapes(element, shared))
            if name != "g" or len(made):
                yield made


def _copied(use: Xml.Element, shared: dict[str | None, Xml.Element]) -> Iterator[Xml.Element]:
    """A shape that is drawn in many places, drawn there: the page has no references."""
    shape = shared.get(use.get(_HREF, "").removeprefix("#"))
    if shape is not None:
        place = f"translate({_short(use.get('x', '0'))} {_short(use.get('y', '0'))})"
        style = ";".join(part for part in (shape.get("style"), use.get("style")) if part)
        yield Xml.Element("path", {"d": _short(shape.get("d", "")), "transform": place, "style": _style(style)})


def _attributes(element: Xml.Element) -> dict[str, str]:
    kept = {name: _short(value) for name, value in element.attrib.items() if name in _ATTRIBUTES}
    if "style" in kept:
        kept["style"] = _style(element.get("style", ""))
    return {name: " ".join(value.split()) for name, value in kept.items()}


def _style(text: str) -> str:
    """Declarations that are known, with the page's variables for the stand-ins of colours."""
    kept: dict[str, str] = {}
    for declaration in text.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font" and (font := _FONT.search(value)):
            kept["font-size"] = f"{font[2]}px"
            if font[1]:
                kept["font-weight"] = font[1]
        elif name in _STYLES:
            kept[name] = f"var({VARIABLES[value]})" if value in VARIABLES else value
    return ";".join(f"{name}:{value}" for name, value in kept.items())


def _short(text: str) -> str:
    """Numbers to a tenth of a pixel."""
    return _LONG.sub(lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), text)
