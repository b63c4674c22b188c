"""The console's pages, rendered from the templates in `templates/`.

Each page extends `base.html`, which holds the head and the shared header.  Pages are static: their data comes through
the API.
"""

from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined


@dataclass(frozen=True)
class Page:
    """A page of the console."""

    template: str  # in templates/
    title: str
    script: str  # a module of static/


PAGES = {
    "/": Page("wall.html", "dasnet", "main"),
    "/history": Page("history.html", "History · dasnet", "history"),
    "/alert/{alert}": Page("alert.html", "Alert · dasnet", "alert_page"),
    "/latency": Page("latency.html", "Latency · dasnet", "latency"),
    "/try": Page("try.html", "Try it · dasnet", "try"),
    "/status": Page("status.html", "Status · dasnet", "status"),
    "/login": Page("login.html", "Log in · dasnet", "login"),
}
NAVIGATION = (
    ("/", "Wall"),
    ("/history", "History"),
    ("/latency", "Latency"),
    ("/try", "Try it"),
    ("/status", "Status"),
)

_TEMPLATES = Environment(
    loader=PackageLoader("pipeline.console"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@cache
def html(path: str) -> str:
    """Return the HTML of the page at `path`, a key of PAGES."""
    page = PAGES[path]
    template = _TEMPLATES.get_template(page.template)
    return template.render(title=page.title, script=page.script, path=path, navigation=NAVIGATION)
