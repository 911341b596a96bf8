"""Texts of models and annotators as HTML: escaped, or markdown that is sanitized."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Literal

import nh3
from markupsafe import Markup, escape

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

Style = Literal["plain", "markdown"]
# no images (they would be fetched from elsewhere), no styles, no classes, no ids
_TAGS = {"p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "em",
         "strong", "s", "a", "table", "thead", "tbody", "tr", "th", "td"}
_ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}}


def rendered(text: str, style: Style) -> Markup:
    """A text as HTML that is safe to show."""
    if style == "plain":
        return Markup('<div class="plain">') + escape(text) + Markup("</div>")
    clean = nh3.clean(
        _markdown().render(text), tags=_TAGS, attributes=_ATTRIBUTES, url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
    )
    return Markup('<div class="markdown">') + Markup(clean) + Markup("</div>")


@cache
def _markdown() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False, "linkify": False}).enable(["table", "strikethrough"])
