"""A model card as HTML for the status page.  Pure."""

from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

TOP_LEVEL = 3  # headings of the card are below those of the page
LINKED = ("https://", "http://")  # other links lead into the repository


def card_html(card: str) -> str:
    """Return a card's Markdown as HTML, without its title, images and links into the repository; HTML in it is text."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(card)
    if tokens and tokens[0].tag == "h1":
        del tokens[:3]  # open, text, close
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + TOP_LEVEL - 1)}"
        if token.children:
            token.children = _shown(token.children)
    return str(markdown.renderer.render(tokens, markdown.options, {}))


def _shown(tokens: Sequence[Token]) -> list[Token]:
    shown, is_linked = list[Token](), False
    for token in tokens:
        if token.type == "link_open":
            is_linked = str(token.attrs.get("href", "")).startswith(LINKED)
            token.attrs |= {"target": "_blank", "rel": "noopener noreferrer"}
        if token.type == "image" or (token.type in ("link_open", "link_close") and not is_linked):
            continue
        shown.append(token)
    return shown
