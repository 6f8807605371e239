"""A page as a browser reads it, for tests of reports."""

import re
from html.parser import HTMLParser


class PageReader(HTMLParser):
    """Checks that tags are closed, and gathers addresses, text and the cells of tables."""

    VOID = ("meta", "img", "path", "use", "br", "rect", "link")

    def __init__(self, text):
        super().__init__()
        self.text, self.open, self.links, self.ids, self.words = text, [], [], [], []
        self.rows, self.labels = [], []
        self.feed(text)

    def check_is_whole(self):
        """Nothing is left open, and nothing has to be fetched."""
        assert not self.open
        inner = {f"#{name}" for name in self.ids}
        assert all(link.startswith("data:") or link in inner for link in self.links)
        assert len(self.ids) == len(set(self.ids)), "charts share no names"
        assert "http" not in re.sub(r'"data:[^"]*"', "", self.text)
        assert "url(" not in re.sub(r"url\(#", "", self.text)

    @property
    def told(self):
        """All text, with single spaces."""
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href", "poster", "data", "action")]
        self.ids += [value for name, value in attrs if name == "id"]
        self.labels += [value for name, value in attrs if name in ("aria-label", "alt")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if {"th", "td"} & set(self.open):
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {data.strip()}".strip().replace("\u00a0", " ")
