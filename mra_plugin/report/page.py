"""The HTML page: one file that needs nothing else."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from .results import Results
from .sections import section
from .statements import statements
from .tables import Section

# The sections of a page in their order, each with the plots that stand in it.
CHAPTERS = {
    "retrieval_all": ("ranking", "ranking-speed"),
    "compare": (),
    "settings": (),
    "speed_all": ("speed-up",),
    "time": ("time",),
    "memory_all": ("memory",),
    "growth": (),
    "layer": ("layer-speed-up",),
    "layer_memory": (),
    "busy": (),
    "closeness": ("error-cost", "error-density"),
    "additions": ("error-cost-additions",),
    "budget": (),
    "pictures": (),
    "distillation": (),
    "stages": (),
    "not_run": (),
    "machine": (),
}


@dataclass(frozen=True)
class Picture:
    """A plot as data URIs, for wide and for narrow screens, and in words."""

    wide: str
    narrow: str
    text: str


@dataclass(frozen=True)
class Chapter:
    """A section with its plots and the name that links lead to."""

    id: str
    section: Section
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Part:
    """All about the results of one device."""

    id: str
    title: str
    statements: tuple[str, ...]
    chapters: tuple[Chapter, ...]
    notes: tuple[str, ...]


def picture(wide: bytes, narrow: bytes, text: str) -> Picture:
    """A picture of two SVG files."""
    return Picture(_data_uri(wide), _data_uri(narrow), text)


def page(found: Sequence[tuple[Results, Mapping[str, Picture]]]) -> str:
    """The page of all results.

    Args:
        found: results, each with its plots by name.

    Returns:
        HTML that refers to nothing outside of itself.
    """
    parts = [_part(f"part-{at}", *one) for at, one in enumerate(found, 1)]
    # Spaces at the ends of template lines say nothing, but would fill the file.
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = files(__package__).joinpath("page.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(parts=parts) + "\n"


def _part(name: str, results: Results, pictures: Mapping[str, Picture]) -> Part:
    chapters = []
    for chapter, plots in CHAPTERS.items():
        if shown := section(chapter, results):
            there = tuple(pictures[plot] for plot in plots if plot in pictures)
            chapters.append(Chapter(f"{name}-{chapter}", shown, there))
    return Part(name, results.title, tuple(statements(results)), tuple(chapters), results.notes)


def _data_uri(svg: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"
