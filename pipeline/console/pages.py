"""The console's pages: each one's own part, in one shell with the head and the header that they share.

In: the path of a page.  Out: its HTML, the same for everyone: what it shows comes as data.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Template

PARTS = Path(__file__).parent / "parts"


@dataclass(frozen=True)
class Page:
    part: str  # a file of PARTS
    title: str
    script: str  # a module of static/
    has_header: bool = True


PAGES = {
    "/": Page("wall", "dasnet", "main"),
    "/latency": Page("latency", "Latency · dasnet", "latency"),
    "/try": Page("try", "Try it · dasnet", "try"),
    "/status": Page("status", "Status · dasnet", "status"),
    "/login": Page("login", "Log in · dasnet", "login", has_header=False),
}


@cache
def html(path: str) -> str:
    """Of the page at `path`, one of PAGES."""
    page = PAGES[path]
    header = _part("header").replace(f'<a href="{path}">', f'<a href="{path}" aria-current="page">')
    shell = Template(_part("shell"))
    return shell.substitute(
        title=page.title, script=page.script, header=header if page.has_header else "", main=_part(page.part)
    )


def _part(name: str) -> str:
    return (PARTS / f"{name}.html").read_text(encoding="utf-8")
