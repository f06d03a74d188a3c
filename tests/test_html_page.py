"""The page builder: escaping, images, and the rules that every page has to follow."""

import base64
import html
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib.visualization.html_page import Folded, Gallery, Image, Section, Table, build_page
from lib.visualization.style import encode_image


class Page(HTMLParser):
    """Tags, attributes and text of a page; asserts that tags are closed in order."""

    def __init__(self, content: str) -> None:
        super().__init__()
        headings = re.findall(r'<h[12] id="([^"]*)">(.*?)</h[12]>', content)
        self.headings = {key: html.unescape(title) for key, title in headings}
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.images: list[dict[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(content)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag == "img":
            self.images.append(dict(attrs))
        elif tag != "meta":
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


def check(path: Path, headings) -> Page:
    """The rules that hold for every page."""
    content = path.read_text(encoding="utf-8")
    page = Page(content)
    assert list(page.headings) == list(headings)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    for name, value in page.attributes:
        if name in ("src", "href", "srcset", "data", "action"):
            assert value.startswith("data:image/") or (value[0] == "#" and value[1:] in ids), value[:80]
        assert not name.startswith("on")
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(page.tags)
    assert "url(" not in content and "@import" not in content
    assert all(image["alt"] for image in page.images)
    for image in page.images:
        encoded = base64.b64decode(image["src"].partition(",")[2], validate=True)
        assert cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR).shape[0] > 50
    assert 0 < len(content) < 5_000_000
    return page


def test_everything_is_escaped(tmp_path):
    evil = "</title></pre></style><script>x</script><img src=x onerror='y'>\"&'"
    image = Image(encode_image(np.zeros((60, 60, 3), np.uint8)), evil, evil)
    parts = [evil, Table([evil], [[evil, evil]], evil), Table([evil, evil], [], text=True), Folded(evil, evil)]
    path = tmp_path / "evil.html"
    path.write_text(build_page(evil, evil, [Section("a", evil, [*parts, Gallery([image]), Gallery([], True)])]))
    page = check(path, ["top", "a"])
    assert page.tags.count("img") == 1 and page.images[0]["alt"] == evil and page.headings["a"] == evil
    assert page.text.count(evil) == 15


def test_images_must_be_images():
    with pytest.raises(ValueError, match="image 'seven': expected the content of a PNG or JPEG"):
        build_page("", "", [Section("a", "", [Gallery([Image(b"GIF89a", "seven")])])])
