"""The console's pages, rendered from the templates in `templates/`.

Each page extends `base.html`, which holds the head and the shared header.  Pages know who looks, so that they show what
this user may do; all data comes through the API.
"""

from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.config.users import User, UserRole


@dataclass(frozen=True)
class Page:
    """A page of the console."""

    template: str  # in templates/
    title: str
    script: str  # a module of static/
    role: UserRole = UserRole.VIEWER  # least role of those who may open it


PAGES = {
    "/": Page("wall.html", "dasnet", "main"),
    "/map": Page("map.html", "Map · dasnet", "map"),
    "/history": Page("history.html", "History · dasnet", "history"),
    "/alert/{alert}": Page("alert.html", "Alert · dasnet", "alert_page"),
    "/camera/{camera}/zones": Page("zones.html", "Zones · dasnet", "zones", UserRole.ADMIN),
    "/latency": Page("latency.html", "Latency · dasnet", "latency"),
    "/try": Page("try.html", "Try it · dasnet", "try", UserRole.OPERATOR),
    "/audit": Page("audit.html", "Audit log · dasnet", "audit", UserRole.ADMIN),
    "/status": Page("status.html", "Status · dasnet", "status"),
    "/login": Page("login.html", "Log in · dasnet", "login"),
}
NAVIGATION = (
    ("/", "Wall"),
    ("/map", "Map"),
    ("/history", "History"),
    ("/latency", "Latency"),
    ("/try", "Try it"),
    ("/audit", "Audit"),
    ("/status", "Status"),
)

_TEMPLATES = Environment(
    loader=PackageLoader("pipeline.console"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def html(path: str, user: User | None, *, has_names: bool, logs_out: bool) -> str:
    """Return the HTML of a page.

    Args:
        path: a key of PAGES.
        user: who looks; None: nobody who is logged in.
        has_names: whether users log in with a name.
        logs_out: whether the user logs out here: not where nobody logs in, or at a proxy.
    """
    page = PAGES[path]
    template = _TEMPLATES.get_template(page.template)
    navigation = [(to, name) for to, name in NAVIGATION if user is not None and user.role.may(PAGES[to].role)]
    return template.render(
        title=page.title,
        script=page.script,
        path=path,
        navigation=navigation,
        user=user,
        has_names=has_names,
        logs_out=logs_out,
    )
