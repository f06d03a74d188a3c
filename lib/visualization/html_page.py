"""One HTML page from plain data: sections of text, tables and images. It needs no script, no network, no other file.

Everything that is put into the page is escaped here. A Content-Security-Policy in its head forbids scripts and any
request, so even a mistake in that could do nothing.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Cells as text. The first column names the row, so it is set to the left and the others to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    text: bool = False
    """all columns hold text, not numbers: all are set to the left"""


@dataclass(frozen=True)
class Image:
    """An encoded image, with its text for those who cannot see it."""

    content: bytes
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Gallery:
    """Images side by side as far as there is room; ``wide``: below one another, at full width."""

    images: Sequence[Image]
    wide: bool = False


@dataclass(frozen=True)
class Folded:
    """Preformatted text that is shown on a click."""

    summary: str
    text: str


Part = str | Table | Gallery | Folded
"""a text is a paragraph"""


@dataclass(frozen=True)
class Section:
    """A heading and what is below it."""

    id: str
    """of the heading, for links"""
    title: str
    parts: Sequence[Part]


_KINDS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg"}
_STYLE = """
:root { color-scheme: light; }
body { max-width: 74rem; margin: 0 auto; padding: 1rem; color: #1a1a1a; background: #fff;
       font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; padding-bottom: .2rem; border-bottom: 2px solid #0072b2; }
p { max-width: 46rem; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; }
a { color: #005a8f; }
.scroll { overflow-x: auto; display: inline-block; max-width: 100%; vertical-align: top; margin: .5rem 2.5rem .8rem 0; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .2rem 0; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd; vertical-align: top; }
th:first-child, td:first-child, table.text th, table.text td { text-align: left; }
tbody th, td { white-space: nowrap; }
table.text td { white-space: normal; overflow-wrap: anywhere; min-width: 6rem; }
thead th { border-bottom: 2px solid #999; white-space: nowrap; }
tbody th { font-weight: 400; }
.gallery { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: .8rem; margin: .8rem 0; }
.gallery figure { max-width: 28rem; }
.gallery.wide figure { max-width: none; }
.gallery.wide { display: block; }
figure { margin: 0 0 .8rem; }
.wide figure { overflow-x: auto; }
img { display: block; width: 100%; height: auto; }
.wide img { min-width: 44rem; }
figcaption { font-size: .92rem; padding: .2rem 0; }
pre { overflow-x: auto; background: #f5f5f5; padding: .8rem; font-size: .85rem; }
summary { cursor: pointer; color: #005a8f; }
@media (max-width: 40rem) {
  table { font-size: .82rem; }
  th, td { padding: .2rem .35rem; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  h2 { break-after: avoid; }
  figure, tr { break-inside: avoid; }
  .gallery { grid-template-columns: repeat(3, 1fr); }
  .wide img { min-width: 0; }
  .scroll, .wide figure { overflow: visible; }
}
"""


def build_page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The whole page, with links to its sections at the top. Raises ValueError for an image that is no PNG or JPEG."""
    links = "\n".join(f'<a href="#{_escape(s.id)}">{_escape(s.title)}</a>' for s in sections)
    body = "\n".join(
        f'<section>\n<h2 id="{_escape(s.id)}">{_escape(s.title)}</h2>\n{"".join(map(_part, s.parts))}</section>'
        for s in sections
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1 id="top">{_escape(title)}</h1>
<p>{_escape(subtitle)}</p>
<nav aria-label="Sections">
{links}
</nav>
</header>
<main>
{body}
</main>
</body>
</html>
"""


def _escape(text: str) -> str:
    return html.escape(text, quote=True)


def _part(part: Part) -> str:
    if isinstance(part, str):
        return f"<p>{_escape(part)}</p>\n"
    if isinstance(part, Folded):
        return f"<details><summary>{_escape(part.summary)}</summary><pre>{_escape(part.text)}</pre></details>\n"
    if isinstance(part, Gallery):
        figures = "".join(_figure(image) for image in part.images)
        return f'<div class="gallery{" wide" if part.wide else ""}">\n{figures}</div>\n'
    return _table(part)


def _table(table: Table) -> str:
    caption = f"<caption>{_escape(table.caption)}</caption>" if table.caption else ""
    header = "".join(f'<th scope="col">{_escape(cell)}</th>' for cell in table.header)
    rows = "".join(
        f'<tr><th scope="row">{_escape(first)}</th>{"".join(f"<td>{_escape(cell)}</td>" for cell in rest)}</tr>\n'
        for first, *rest in table.rows
    )
    kind = ' class="text"' if table.text else ""
    return (
        f'<div class="scroll"><table{kind}>{caption}<thead><tr>{header}</tr></thead>\n'
        f"<tbody>\n{rows}</tbody></table></div>\n"
    )


def _figure(image: Image) -> str:
    kind = next((kind for start, kind in _KINDS.items() if image.content.startswith(start)), None)
    if kind is None:
        raise ValueError(f"image {image.alt!r}: expected the content of a PNG or JPEG file")
    data = base64.b64encode(image.content).decode("ascii")
    caption = f"<figcaption>{_escape(image.caption)}</figcaption>" if image.caption else ""
    return f'<figure><img alt="{_escape(image.alt)}" src="data:image/{kind};base64,{data}">{caption}</figure>\n'
