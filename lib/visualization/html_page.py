"""One HTML page from plain data: sections of text, tables and images, without scripts and without other files.

All text is escaped here. A Content-Security-Policy in the head of the page forbids scripts and requests as well.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Table:
    """Cells as text. The first column, the name of the row, is aligned left and the others right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    text: bool = False
    """the cells are text, not numbers: align all columns left"""

    def to_html(self) -> str:
        caption = f"<caption>{escape(self.caption)}</caption>" if self.caption else ""
        header = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in self.header)
        rows = "".join(
            f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in rest)}</tr>\n'
            for first, *rest in self.rows
        )
        kind = ' class="text"' if self.text else ""
        return (
            f'<div class="scroll"><table{kind}>{caption}<thead><tr>{header}</tr></thead>\n'
            f"<tbody>\n{rows}</tbody></table></div>\n"
        )


@dataclass(frozen=True)
class Image:
    """The content of a PNG or JPEG file, with a text alternative."""

    content: bytes
    alt: str
    caption: str = ""

    def to_html(self) -> str:
        kind = next((kind for start, kind in _IMAGE_KINDS.items() if self.content.startswith(start)), None)
        if kind is None:
            raise ValueError(f"image {self.alt!r}: expected the content of a PNG or JPEG file")
        data = base64.b64encode(self.content).decode("ascii")
        caption = f"<figcaption>{escape(self.caption)}</figcaption>" if self.caption else ""
        return f'<figure><img alt="{escape(self.alt)}" src="data:image/{kind};base64,{data}">{caption}</figure>\n'


@dataclass(frozen=True)
class Gallery:
    """Images side by side, as many as fit; ``wide``: one below the other, at full width."""

    images: Sequence[Image]
    wide: bool = False

    def to_html(self) -> str:
        figures = "".join(image.to_html() for image in self.images)
        return f'<div class="{"wide" if self.wide else "gallery"}">\n{figures}</div>\n'


@dataclass(frozen=True)
class Folded:
    """Preformatted text that a click unfolds."""

    summary: str
    text: str

    def to_html(self) -> str:
        return f"<details><summary>{escape(self.summary)}</summary><pre>{escape(self.text)}</pre></details>\n"


Part = str | Table | Gallery | Folded
"""a str is a paragraph"""


@dataclass(frozen=True)
class Section:
    """A heading and its parts."""

    id: str
    """of the heading, for links"""
    title: str
    parts: Sequence[Part]

    def to_html(self) -> str:
        parts = [f"<p>{escape(part)}</p>\n" if isinstance(part, str) else part.to_html() for part in self.parts]
        return f'<section>\n<h2 id="{escape(self.id)}">{escape(self.title)}</h2>\n{"".join(parts)}</section>'


_IMAGE_KINDS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg"}
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
th:first-child, table.text th, table.text td { text-align: left; }
tbody th, td { white-space: nowrap; }
table.text td { white-space: normal; overflow-wrap: anywhere; min-width: 6rem; }
thead th { border-bottom: 2px solid #999; white-space: nowrap; }
tbody th { font-weight: 400; }
.gallery { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: .8rem; margin: .8rem 0; }
.gallery figure { max-width: 28rem; }
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
    links = "\n".join(f'<a href="#{escape(s.id)}">{escape(s.title)}</a>' for s in sections)
    body = "\n".join(section.to_html() for section in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<header>
<h1 id="top">{escape(title)}</h1>
<p>{escape(subtitle)}</p>
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
