"""An endpoint of the API: its row in the documentation, its part of the OpenAPI description, and who may use it."""

from typing import Any, NamedTuple

from pipeline.config.users import UserRole
from pipeline.console.parameters import DEFAULT_LIMIT, MAX_LIMIT


class Parameter(NamedTuple):
    """A query parameter."""

    name: str
    values: str  # as people write them
    schema: dict[str, Any]
    means: str = ""

    @property
    def written(self) -> str:
        """The parameter in words, as `limit=1..1000`."""
        return f"{self.name}={self.values}" + (f": {self.means}" if self.means else "")


def text(name: str, means: str = "", values: str = "ID") -> Parameter:
    """Return a parameter that may be any text."""
    return Parameter(name, values, {"type": "string"}, means)


def choice(name: str, *values: str) -> Parameter:
    """Return a parameter that is one of these; the first one is the default."""
    return Parameter(name, "|".join(values), {"type": "string", "enum": list(values), "default": values[0]})


def moment(name: str, means: str = "") -> Parameter:
    """Return a parameter that is a time with its zone."""
    return Parameter(name, "TIME", {"type": "string", "format": "date-time"}, means)


LIMIT = Parameter(
    "limit",
    f"1..{MAX_LIMIT}",
    {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
)
CAMERA, ALERT = text("camera"), text("alert")
SINCE, BEFORE = moment("since"), moment("before")


class Endpoint(NamedTuple):
    """An endpoint of the API."""

    method: str
    path: str
    handler: str  # a method of api.Api
    does: str
    query: tuple[Parameter, ...] = ()
    body: type | None = None
    answer: type | str = ""  # an object, or a media type; empty: status 204
    role: UserRole | None = None  # least role of its users; None: viewers may look, operators act
    needs_session: bool = True
    errors: tuple[str, ...] = ()  # status codes beside those that its parameters have

    @property
    def least_role(self) -> UserRole:
        """The least role that may use it."""
        return self.role or (UserRole.VIEWER if self.method == "GET" else UserRole.OPERATOR)

    @property
    def written_query(self) -> str:
        """The query in words."""
        return ", ".join(parameter.written for parameter in self.query)
