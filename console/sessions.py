"""Who a customer's commands speak for: a session that `darkroom signin` keeps, or one of the moment."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from console import files
from console.client import REFRESH, SIGNIN, Answer, Client
from console.failures import CommandError, Exit

_LEFT: Final = timedelta(seconds=60)
"""A token with less time than this is traded for another before it is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Tokens, and whose they are."""

    email: str
    access_token: str
    refresh_token: str
    expires_at: str

    @classmethod
    def of(cls, answer: Answer) -> Self:
        """From what `signin` and `refreshSession` answer."""
        return cls(
            email=answer["account"]["email"],
            access_token=answer["accessToken"],
            refresh_token=answer["refreshToken"],
            expires_at=answer["expiresAt"],
        )

    @property
    def fresh(self) -> bool:
        """Whether the access token is good for a while."""
        return datetime.fromisoformat(self.expires_at) - datetime.now(UTC) > _LEFT


class Memory:
    """A session that ends with the program."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def load(self) -> Session | None:
        """The session."""
        return self._session

    def save(self, session: Session) -> None:
        """Take this session from now on."""
        self._session = session

    def locked(self) -> AbstractContextManager[None]:
        """Nobody else knows of it."""
        return nullcontext()


class SessionFile:
    """The sessions of one person, by the address of the service, in a file that nobody else can read."""

    def __init__(self, path: Path, *, url: str) -> None:
        self._path = path
        self._url = url

    @classmethod
    def usual(cls, url: str) -> Self:
        """In the folder where programs keep what is theirs (``XDG_CONFIG_HOME``, else ``~/.config``)."""
        folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        return cls(Path(folder) / "darkroom" / "sessions.json", url=url)

    def load(self) -> Session | None:
        """The session with this service, if one is kept."""
        try:
            found = self._all().get(self._url)
            return Session(**found) if found else None
        except TypeError as error:
            raise self._unreadable() from error

    def save(self, session: Session) -> None:
        """Keep a session for this service."""
        self._write({**self._all(), self._url: asdict(session)})

    def forget(self) -> None:
        """Keep none for this service any more."""
        self._write({url: session for url, session in self._all().items() if url != self._url})

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One program at a time: a refresh token that is used twice ends its session."""
        path = self._path.with_suffix(".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = path.open("w")
        except OSError as error:
            raise CommandError(f"{path} cannot be written: {error.strerror}") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _all(self) -> dict[str, dict[str, str]]:
        try:
            found = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise CommandError(f"{self._path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise self._unreadable() from error
        if not isinstance(found, dict):
            raise self._unreadable()
        return found

    def _unreadable(self) -> CommandError:
        return CommandError(f"{self._path} cannot be read: remove it and sign in again")

    def _write(self, sessions: dict[str, dict[str, str]]) -> None:
        files.write(self._path, json.dumps(sessions, indent=2).encode(), private=True)


async def sign_in(url: str, *, email: str, password: str) -> Session:
    """Open a session.

    Raises:
        CommandError: the service refuses, or does not answer.
    """
    return Session.of(await Client(url).result(SIGNIN, input={"email": email, "password": password}))


async def refreshed(url: str, session: Session) -> Session:
    """The next pair of tokens of a session.

    Raises:
        CommandError: the session has ended, or the service does not answer.
    """
    try:
        return Session.of(await Client(url).result(REFRESH, refreshToken=session.refresh_token))
    except CommandError as error:
        if error.status is Exit.SIGN_IN:
            raise CommandError(
                "your session has ended: run `darkroom signin`", status=Exit.SIGN_IN
            ) from error
        raise


def client(url: str, sessions: SessionFile | Memory) -> Client:
    """A client that signs its operations with a session, and renews that in time.

    Raises:
        CommandError: there is no session.
    """
    if sessions.load() is None:
        raise CommandError(
            f"you are not signed in at {url}: run `darkroom signin`,"
            " or set DARKROOM_EMAIL and DARKROOM_PASSWORD",
            status=Exit.SIGN_IN,
        )

    async def access_token() -> str:
        session = sessions.load()
        if session is None or not session.fresh:
            with sessions.locked():
                session = sessions.load()
                if session is None:
                    raise CommandError("you have signed out meanwhile", status=Exit.SIGN_IN)
                if not session.fresh:
                    session = await refreshed(url, session)
                    sessions.save(session)
        return session.access_token

    return Client(url, access_token=access_token)
