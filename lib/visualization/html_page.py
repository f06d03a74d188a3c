"""One HTML page from plain data: sections of text, tables and images, without scripts and without other files.

The template, page.html, escapes all text. A Content-Security-Policy in its head forbids scripts and requests as well.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

_TEMPLATE = Path(__file__).with_name("page.html")
_IMAGE_KINDS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg"}


@dataclass(frozen=True)
class Table:
    """Cells as text. The first column, the name of the row, is aligned left and the others right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    text: bool = False  # the cells are text, not numbers: align all columns left


@dataclass(frozen=True)
class Image:
    """The content of a PNG or JPEG file, with a text alternative."""

    content: bytes
    alt: str
    caption: str = ""

    @property
    def source(self) -> str:
        """The content as a URL. Raises ValueError for another kind of file."""
        kind = next((kind for start, kind in _IMAGE_KINDS.items() if self.content.startswith(start)), None)
        if kind is None:
            raise ValueError(f"image {self.alt!r}: expected the content of a PNG or JPEG file")
        return f"data:image/{kind};base64,{base64.b64encode(self.content).decode('ascii')}"


@dataclass(frozen=True)
class Gallery:
    """Images side by side, as many as fit; ``wide``: one below the other, at full width."""

    images: Sequence[Image]
    wide: bool = False


@dataclass(frozen=True)
class Folded:
    """Preformatted text that a click unfolds."""

    summary: str
    text: str


Part = str | Table | Gallery | Folded  # a str is a paragraph


@dataclass(frozen=True)
class Section:
    """A heading and its parts."""

    id: str  # of the heading, for links
    title: str
    parts: Sequence[Part]


def build_page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The whole page, with links to its sections at the top. Raises ValueError for an image that is no PNG or JPEG."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(title=title, subtitle=subtitle, sections=sections)
