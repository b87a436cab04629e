"""The console script `responses-gateway`."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from app import __version__
from app.settings import ConfigurationError, load

_OWNER_ONLY = 0o077
"""umask: databases and files contain clients' data, so only this user may access them."""
_LONGEST_NAME = 128
_MOST_DAYS = 36_500


class Commands(Protocol):
    """What `add_subparsers` returns; argparse has no public name for it."""

    def add_parser(self, name: str, *, help: str, description: str) -> argparse.ArgumentParser:
        """Add a command."""
        ...


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, or 1 with the reason on standard error."""
    os.umask(_OWNER_ONLY)
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except ConfigurationError as error:
        print(f"configuration:\n{error}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="responses-gateway", description="The OpenAI Responses API in front of Qwen.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _command(commands, "serve", _serve, "migrate an embedded database, then serve")
    _command(commands, "demo", _demo, "serve the built-in demo model, whatever upstream is configured")
    _command(commands, "migrate", _migrate, "bring the database to the current schema")
    _command(commands, "validate", _validate, "check the configuration")
    _command(commands, "doctor", _doctor, "check database, Redis, upstreams and clock, and say how to fix what fails")
    keys = commands.add_parser("keys", help="create, list and revoke API keys").add_subparsers(
        required=True, metavar="ACTION"
    )
    create = _command(keys, "create", _create_key, "create a key and print it once")
    create.add_argument(
        "--project", required=True, type=_name, help="the project it belongs to; created if it does not exist"
    )
    create.add_argument("--name", type=_name, help="what it is for")
    create.add_argument("--days", type=_days, help="days after which it expires; default: never")
    _command(keys, "list", _list_keys, "list keys, without their secrets")
    revoke = _command(keys, "revoke", _revoke_key, "revoke a key")
    revoke.add_argument("key", type=_name, help="its id or prefix, as shown by `keys list`")
    return parser


def _name(given: str) -> str:
    name = given.strip()
    if not name or not name.isprintable() or len(name) > _LONGEST_NAME:
        raise argparse.ArgumentTypeError(f"expected a name: 1 to {_LONGEST_NAME} printable characters")
    return name


def _days(given: str) -> float:
    try:
        days = float(given)
    except ValueError:
        days = 0.0
    if not 0 < days <= _MOST_DAYS:  # also false for NaN
        raise argparse.ArgumentTypeError(f"expected a number of days, more than 0 and at most {_MOST_DAYS}: {given!r}")
    return days


def _command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    what: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=what, description=what)
    parser.set_defaults(command=run)
    return parser


def _serve(_options: argparse.Namespace) -> int:
    # until the application has started: what is loaded is permanent, and collections would take a tenth of the time
    gc.disable()
    from app import serving  # noqa: PLC0415 - the other commands start faster without the server

    return serving.serve(load())


def _demo(_options: argparse.Namespace) -> int:
    os.environ["GATEWAY_UPSTREAM_DIALECT"] = "demo"
    os.environ.pop("GATEWAY_UPSTREAM_BASE_URL", None)
    return _serve(_options)


def _migrate(_options: argparse.Namespace) -> int:
    from app.db.location import database_file, obstacle  # noqa: PLC0415 - alembic and SQLAlchemy are heavy
    from app.db.migrate import upgrade  # noqa: PLC0415 - as above
    from app.db.writer import DatabaseUnavailable  # noqa: PLC0415 - as above

    url = load().database_url
    try:
        file = database_file(url)
        if file and (obstructed := obstacle(file)):
            raise ConfigurationError(
                f"database_url: {obstructed}; change that, or set GATEWAY_DATABASE_URL to a file elsewhere"
            )
        upgrade(url)
    except ValueError as error:
        raise ConfigurationError(f"database_url: {error}") from error
    except (DatabaseUnavailable, OSError) as error:
        raise ConfigurationError(f"database_url: the database cannot be reached: {error}") from error
    print("The database is at the current schema.")
    return 0


def _validate(_options: argparse.Namespace) -> int:
    from app import upstreams  # noqa: PLC0415 - imports every provider

    settings = load()
    upstreams.check(settings)
    print("The configuration is valid.")
    return 0


def _doctor(_options: argparse.Namespace) -> int:
    from app import doctor  # noqa: PLC0415 - imports every adapter

    findings = asyncio.run(doctor.examine(load()))
    for finding in findings:
        print(f"{'ok  ' if finding.ok else 'FAIL'} {finding.subject}: {finding.message}")
    return 0 if all(finding.ok for finding in findings) else 1


def _create_key(options: argparse.Namespace) -> int:
    from app import administration  # noqa: PLC0415 - as above

    asyncio.run(administration.create(load(), options.project, options.name or "", options.days))
    return 0


def _list_keys(_options: argparse.Namespace) -> int:
    from app import administration  # noqa: PLC0415 - as above

    asyncio.run(administration.show(load()))
    return 0


def _revoke_key(options: argparse.Namespace) -> int:
    from app import administration  # noqa: PLC0415 - as above

    return 0 if asyncio.run(administration.revoke(load(), options.key)) else 1


if __name__ == "__main__":
    sys.exit(main())
