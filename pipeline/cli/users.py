"""Commands of the console's users."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.application import app
from pipeline.config.users import UserRole

users = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Users of the console.")
app.add_typer(users, name="users")

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="The users file, as in the key `console.users_file`.")
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the user.")]


@users.command(epilog="Example: `dasnet users add users.yaml anna --role operator --camera north`")
def add(
    file: FileArgument,
    name: NameArgument,
    role: Annotated[
        UserRole,
        typer.Option(
            help="`viewer` looks; `operator` also reviews alerts and arms; `admin` also configures and audits."
        ),
    ],
    camera: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="A camera that the user sees; may be repeated; default: all."),
    ] = None,
    no_password: Annotated[bool, typer.Option("--no-password", help="The user comes through a proxy only.")] = False,
) -> None:
    """Add a user; prompts for the password twice, or reads one line from a pipe. Makes the file where it is missing."""
    from pipeline.config.users import User
    from pipeline.console.password import ask, hashed
    from pipeline.console.users_file import add_user, check_new

    check_new(file, name)  # before anybody types a password
    password_hash = None if no_password else hashed(ask(f"Password of {name}"))
    add_user(file, User(name, role, frozenset(camera) if camera else None, password_hash))
    print(f"{file}: user {name} added as {role}")


@users.command(epilog="Example: `dasnet users remove users.yaml anna`")
def remove(file: FileArgument, name: NameArgument) -> None:
    """Remove a user; a running console ends the user's sessions at once."""
    from pipeline.console.users_file import remove_user

    remove_user(file, name)
    print(f"{file}: user {name} removed")


@users.command("list", epilog="Example: `dasnet users list users.yaml`")
def list_users(file: FileArgument) -> None:
    """List the users with their roles and cameras."""
    from pipeline.config.users import read_users
    from pipeline.console.users_file import table

    print("\n".join(table(read_users(file).values())))


@users.command(epilog="Example: `dasnet users passwd users.yaml anna < password.txt`")
def passwd(file: FileArgument, name: NameArgument) -> None:
    """Change a user's password; prompts twice, or reads one line from a pipe. Ends the user's sessions."""
    from pipeline.console.password import ask, hashed
    from pipeline.console.users_file import set_password

    set_password(file, name, hashed(ask(f"Password of {name}")))
    print(f"{file}: password of {name} changed")
