"""Access tokens and download links, and how their keys follow each other."""

import itertools
from datetime import timedelta
from uuid import uuid4

import jwt
import pytest
from pydantic import SecretStr

from core.accounts.tokens import AccessTokens
from core.clock import now
from core.errors import UnauthenticatedError
from core.settings import LinkSettings, TokenSettings
from core.storage import DownloadLinks

OLD, NEW = SecretStr("old " * 10), SecretStr("new " * 10)
ACCOUNT, SESSION = uuid4(), uuid4()


def tokens(secret: SecretStr, *others: SecretStr) -> AccessTokens:
    return AccessTokens(
        TokenSettings(jwt_secret=secret, jwt_other_secrets=others, password_pepper=SecretStr("p" * 20))
    )


def issued(by: AccessTokens) -> str:
    return by.issue(account_id=ACCOUNT, session_id=SESSION, now=now())[0]


def test_a_token_names_its_key_without_telling_it() -> None:
    header = jwt.get_unverified_header(issued(tokens(NEW)))
    assert header == {"alg": "HS256", "typ": "JWT", "kid": header["kid"]}
    assert len(header["kid"]) == 12
    assert header["kid"] != jwt.get_unverified_header(issued(tokens(OLD)))["kid"]


def test_keys_follow_each_other_without_ending_a_token() -> None:
    steps = [tokens(OLD), tokens(OLD, NEW), tokens(NEW, OLD), tokens(NEW)]
    # Two neighbouring steps run beside each other while processes are restarted.
    for before, after in itertools.pairwise(steps):
        assert after.read(issued(before)).session_id == SESSION
        assert before.read(issued(after)).account_id == ACCOUNT


@pytest.mark.parametrize(
    "forged",
    [
        issued(tokens(OLD)),
        jwt.encode({}, NEW.get_secret_value(), algorithm="HS256"),
        jwt.encode({}, "", algorithm="none", headers={"kid": "x"}),
        "no.token.atall",
    ],
    ids=["removed key", "no kid", "no signature", "no token"],
)
def test_a_token_of_an_unknown_key_is_nobodys(forged: str) -> None:
    with pytest.raises(UnauthenticatedError):
        tokens(NEW).read(forged)


def test_a_token_must_be_signed_by_the_key_that_it_names() -> None:
    named = jwt.get_unverified_header(issued(tokens(NEW)))["kid"]
    claims = jwt.decode(issued(tokens(OLD)), options={"verify_signature": False})
    forged = jwt.encode(claims, OLD.get_secret_value(), algorithm="HS256", headers={"kid": named})
    with pytest.raises(UnauthenticatedError):
        tokens(NEW, OLD).read(forged)


def test_download_links_are_good_until_their_secret_is_removed() -> None:
    def links(secret: SecretStr, *others: SecretStr) -> DownloadLinks:
        return DownloadLinks(LinkSettings(download_secret=secret, download_other_secrets=others))

    image, moment = uuid4(), now()
    url = links(OLD).make(image, extension="png", now=moment)
    query = dict(part.split("=") for part in url.partition("?")[2].split("&"))
    expires, signature = int(query["expires"]), query["signature"]

    def allowed(by: DownloadLinks, *, later: timedelta = timedelta(0)) -> bool:
        return by.allows(image, expires=expires, signature=signature, now=moment + later)

    assert allowed(links(NEW, OLD))
    assert not allowed(links(NEW, OLD), later=timedelta(hours=2))
    assert not allowed(links(NEW))
