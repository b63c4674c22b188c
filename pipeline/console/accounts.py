"""Who asks: the users of the console, from the users file, the single password, or a trusted proxy; and the log-in.

The file is read again when it changes: a user who was changed or removed has no session from then on.  A file that
cannot be used leaves the users as they were.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable, Collection
from http.cookies import CookieError, SimpleCookie
from pathlib import Path

import structlog
from starlette.datastructures import Headers

from pipeline.config.console import ConsoleAddress
from pipeline.config.models import Config
from pipeline.config.users import NAME, User, UserRole, read_users
from pipeline.console.attempts import MAX_CLIENTS, USER_BURST, Attempts
from pipeline.console.password import matches, read_password_file
from pipeline.console.sessions import Sessions
from pipeline.errors import ConfigError

SESSION_COOKIE = "dasnet_session"
ADMIN = "admin"  # the user of a console with a single password
LOCAL = User("", UserRole.ADMIN)  # of a console without a log-in, which is on loopback
EVERYONE = "*"  # in console.proxy_roles
# Of no password, so that a log-in as nobody takes as long as any other.
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$tNEnR2m4v+p1QIr8dLRfjw$XTzMtWIuK02+MFLv04MCC0dzcRnzjIpv8xWrfRGRsGw"

_Signature = tuple[int, int, int]


class TooManyAttemptsError(Exception):
    """Too many wrong passwords from one address, or of one user."""

    def __init__(self, wait_s: float) -> None:
        self.wait_s = math.ceil(wait_s)
        super().__init__(self.wait_s)


class NoRoleError(Exception):
    """A proxy names a user who has no role here."""


class Accounts:
    """The users, and their sessions; to be used in the event loop's thread.

    Args:
        config: of the site.
        cameras: returns the ids that users may have.

    Raises:
        ConfigError: The users file or password file cannot be used.
    """

    def __init__(self, config: Config, cameras: Callable[[], Collection[str]]) -> None:
        self.settings: ConsoleAddress = config.console
        self._cameras = cameras
        self._path = self.settings.users_file or self.settings.password_file
        self._signature = self._seen()
        self._users = self._read()
        self.sessions = Sessions(config.run_dir / "console.sessions", self.settings.session_hours * 3600)
        self._of_address, self._of_user = Attempts(), Attempts(USER_BURST)
        self._familiar: OrderedDict[tuple[str, str], None] = OrderedDict()  # user and address that logged in
        self._lock = asyncio.Lock()  # a check takes 64 MiB

    @property
    def has_names(self) -> bool:
        """Whether users log in with a name."""
        return self.settings.users_file is not None

    @property
    def users(self) -> dict[str, User]:
        """The users as they are in the file now."""
        signature = self._seen()
        if signature != self._signature:
            self._signature = signature
            try:
                self._users = self._read()
            except ConfigError as error:
                structlog.get_logger().error("users not reloaded; they stay as they were", reason=str(error))
            else:
                structlog.get_logger().info("users reloaded", users=len(self._users))
        return self._users

    def _seen(self) -> _Signature | None:
        """Return what changes whenever the file is written."""
        try:
            about = self._path.stat() if self._path is not None else None
        except OSError:
            return None
        return about and (about.st_mtime_ns, about.st_size, about.st_ino)

    def _read(self) -> dict[str, User]:
        path: Path | None = self._path
        if path is None:
            return {}
        if self.has_names:
            return read_users(path, self._cameras())
        return {ADMIN: User(ADMIN, UserRole.ADMIN, None, read_password_file(path))}

    def user(self, headers: Headers, is_from_proxy: bool) -> User | None:
        """Return who sends a request, or None: nobody who is logged in.

        Raises:
            NoRoleError: A trusted proxy names a user who has no role here.
        """
        named = self._named(headers, is_from_proxy)
        if named:
            return self._of_proxy(named, headers)
        return self.sessions.user(session_of(headers), self.users)

    def is_named(self, headers: Headers, is_from_proxy: bool) -> bool:
        """Return whether a trusted proxy names who sends a request: logging out is there, too."""
        return bool(self._named(headers, is_from_proxy))

    def is_still(self, user: User, headers: Headers, is_from_proxy: bool) -> bool:
        """Return whether a request that was answered once is still one of that user, with the same rights."""
        try:
            return self.user(headers, is_from_proxy) == user
        except NoRoleError:
            return False

    def _named(self, headers: Headers, is_from_proxy: bool) -> list[str]:
        header = self.settings.proxy_user_header
        return headers.getlist(header) if header is not None and is_from_proxy else []

    def _of_proxy(self, named: list[str], headers: Headers) -> User:
        """Return the user whom a trusted proxy names."""
        name = named[0].strip()
        if len(named) > 1 or not NAME.fullmatch(name):
            raise NoRoleError(f"{self.settings.proxy_user_header}: must name one user")
        known = self.users.get(name) if self.has_names else None
        if known is not None:
            return known
        header, roles = self.settings.proxy_groups_header, self.settings.proxy_roles
        groups = ",".join(headers.getlist(header) if header is not None else ()).split(",")
        given = [roles[group] for group in (*(group.strip() for group in groups), EVERYONE) if group in roles]
        if not given:
            raise NoRoleError(f"user {name!r} has no role on this console")
        return User(name, max(given, key=list(UserRole).index))

    async def log_in(self, name: str, password: str, address: str) -> tuple[User, str] | None:
        """Check a name and a password given by the client at `address`.

        Many wrong passwords of one user, from whatever addresses, slow down only addresses from which that user has not
        logged in before: nobody can keep a user out where the user works.

        Returns:
            The user, and the token of a new session; None where they are wrong.

        Raises:
            TooManyAttemptsError: The client must wait.
        """
        user = self.users.get(name if self.has_names else ADMIN)
        wait_s = self._of_address.take(address)
        is_limited = user is not None and self.has_names and (user.name, address) not in self._familiar
        if not wait_s and is_limited:
            wait_s = self._of_user.take(name)
        if wait_s:
            raise TooManyAttemptsError(wait_s)
        known = user.password_hash if user is not None else None
        async with self._lock:
            is_right = await asyncio.to_thread(matches, known or _NOBODY, password) and known is not None
        if user is None or not is_right:
            return None
        self._of_address.refund(address)
        if is_limited:
            self._of_user.refund(name)
        self._familiar[user.name, address] = None
        if len(self._familiar) > MAX_CLIENTS:
            self._familiar.popitem(last=False)
        return user, self.sessions.begin(user)


def load_accounts(config: Config, cameras: Callable[[], Collection[str]] | None = None) -> Accounts | None:
    """Return the users of a console, or None where it has no log-in.

    Raises:
        ConfigError: The users file or password file cannot be used.
    """
    known = [camera.id for camera in config.cameras]
    return Accounts(config, cameras or (lambda: known)) if config.console.has_login else None


def session_of(headers: Headers) -> str:
    """Return the token of a request's session, or an empty string."""
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(SESSION_COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""
