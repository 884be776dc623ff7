import re
from pathlib import Path
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from api.app import Parts
from api.assets import BUILT
from core.clock import now
from core.errors import ServiceUnavailableError
from core.messages import Heartbeat
from core.models import Account, TokenPurpose
from core.queue import Queue
from core.settings import LimitSettings
from tests.graphql_client import PASSWORD, Client
from tests.served_api import BROWSER, mailed_token


async def test_health_says_what_is_missing(client: Client, parts: Parts) -> None:
    assert (await client.http.get("/health/live")).json()["status"] == "ok"
    serving = await client.http.get("/health/serving")
    assert (serving.status_code, serving.json()["missing"]) == (200, [])
    ready = await client.http.get("/health/ready")
    assert ready.status_code == 503
    assert ready.json()["missing"] == ["gpu_worker: no warm worker"]


async def test_health_keeps_hosts_and_users_for_the_log(
    client: Client, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(_: str) -> bool:
        raise ServiceUnavailableError("object store, head health: http://store.internal:9000 refused us")

    monkeypatch.setattr(parts.storage, "exists", refused)
    monkeypatch.setattr(Queue, "refusal", "api_spare is refused: permissions violation")
    with capture_logs() as logs:
        ready = await client.http.get("/health/ready")
    assert ready.status_code == 503
    assert ready.json()["missing"] == [
        "object store: unavailable",
        "broker: refuses what is asked of it",
        "gpu_worker: no warm worker",
    ]
    [line] = [log for log in logs if log["event"] == "backing_service_unavailable"]
    assert "store.internal:9000" in line["error"]


async def test_a_warm_worker_makes_the_service_ready(client: Client, parts: Parts) -> None:
    await parts.queue.put_heartbeat(
        Heartbeat(worker="w1", models=("m",), device="cpu", slots=1, started_at=now(), beat_at=now())
    )
    ready = await client.http.get("/health/ready")
    assert (ready.status_code, ready.json()["workers"]) == (200, 1)


async def test_every_answer_carries_the_request_id(client: Client) -> None:
    given = await client.http.get("/health/live", headers={"X-Request-Id": "mine-1"})
    assert given.headers["x-request-id"] == "mine-1"
    made = await client.http.get("/health/live", headers={"X-Request-Id": "not\x20good" * 20})
    assert len(made.headers["x-request-id"]) == 32


async def test_a_body_that_is_too_large_is_refused_with_the_limit(client: Client) -> None:
    given = {"X-Request-Id": "mine-1"}
    response = await client.http.post("/graphql", content=b" " * 300_000, headers=given)
    assert response.status_code == 413
    assert "262144" in response.text
    assert response.headers["x-request-id"] == "mine-1"


async def test_queries_by_get_are_refused(client: Client) -> None:
    response = await client.http.get("/graphql", params={"query": "{ models { id } }"})
    assert response.status_code == 405


built = pytest.mark.skipif(not BUILT.is_dir(), reason="the pages are not built: `make frontend`")


@built
async def test_a_browser_gets_graphiql_from_our_own_origin(client: Client) -> None:
    page = await client.http.get("/graphql", headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert 'src="/assets/' in page.text


@built
async def test_the_studio_runs_no_script_or_style_but_its_own(client: Client) -> None:
    page = await client.http.get("/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "script-src 'self'; style-src 'self';" in policy
    assert "unsafe" not in policy
    assert "<style" not in page.text
    assert " style=" not in page.text
    assert page.text.count("<script") == page.text.count('src="/assets/')


@built
async def test_what_the_pages_load_is_kept_for_good_and_the_pages_are_not(client: Client) -> None:
    page = await client.http.get("/")
    [script] = re.findall(r'src="(/assets/[^"]+)"', page.text)
    assert page.headers["cache-control"] == "no-cache"
    assert "immutable" in (await client.http.get(script)).headers["cache-control"]
    assert (await client.http.get("/assets/none.js")).status_code == 404


@pytest.fixture
def unbuilt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("api.assets.BUILT", tmp_path / "dist")


@pytest.mark.usefixtures("unbuilt")
async def test_where_nothing_is_built_pages_say_what_to_do_and_what_they_load_is_not_found(
    client: Client,
) -> None:
    page = await client.http.get("/")
    assert (page.status_code, "make frontend" in page.text) == (503, True)
    assert (await client.http.get("/assets/index.js")).status_code == 404


async def test_the_pages_of_letters_have_the_icon_of_all_others(
    client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assets = tmp_path / "dist" / "assets"
    assets.mkdir(parents=True)
    (assets / "icon-ab12.svg").write_text("<svg/>")
    monkeypatch.setattr("api.assets.BUILT", tmp_path / "dist")
    page = await client.http.get("/verify", params={"token": "x"})
    assert '<link rel="icon" type="image/svg+xml" href="/assets/icon-ab12.svg">' in page.text
    assert "img-src 'self'" in page.headers["content-security-policy"]
    (assets / "icon-ab12.svg").unlink()
    assert 'rel="icon"' not in (await client.http.get("/verify", params={"token": "x"})).text


@pytest.mark.parametrize(
    ("method", "path", "form"),
    [
        ("GET", "/verify", None),
        ("GET", "/verify?token=" + "x" * 201, None),
        ("POST", "/verify", {}),
        ("GET", "/reset-password", None),
        ("POST", "/reset-password", {"password": PASSWORD}),
        ("GET", "/unsubscribe", None),
        ("POST", "/unsubscribe", None),
        ("POST", "/unsubscribe?token=x&wanted=perhaps", None),
    ],
)
async def test_a_link_without_its_token_is_answered_with_a_page(
    client: Client, method: str, path: str, form: dict[str, str] | None
) -> None:
    answer = await client.http.request(method, path, data=form, headers=BROWSER)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "This link is not whole" in answer.text


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/picture", 404, "There is nothing here."),
        (f"/images/{UUID(int=1)}.png?expires=1&signature=x", 403, "This link is not valid or has expired."),
        (f"/images/{UUID(int=1)}.png?expires=1", 400, "This link is not whole."),
    ],
)
async def test_people_get_a_page_and_programs_json_where_there_is_nothing(
    client: Client, path: str, status: int, message: str
) -> None:
    page = await client.http.get(path, headers=BROWSER)
    assert (page.status_code, page.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert message in page.text
    assert "Open the studio" in page.text
    answer = await client.http.get(path)
    assert answer.headers["content-type"] == "application/json"
    assert answer.status_code == (422 if status == 400 else status)


async def test_the_verification_page_uses_the_token_only_when_asked_to(client: Client) -> None:
    account = await Account.create(email="a@example.org", email_key="a@example.org", password_hash="-")
    token = await mailed_token(account, TokenPurpose.VERIFY_EMAIL)
    shown = await client.http.get("/verify", params={"token": token})
    assert shown.status_code == 200
    assert token in shown.text
    assert (await Account.get()).email_verified_at is None
    done = await client.http.post("/verify", data={"token": token})
    assert done.status_code == 200
    assert "a@example.org is verified" in done.text
    assert (await Account.get()).email_verified_at is not None
    again = await client.http.post("/verify", data={"token": token})
    assert (again.status_code, "verified, sign in" in again.text) == (400, True)
    hostile = await client.http.get("/verify", params={"token": '"><script>'})
    assert "<script>" not in hostile.text


async def test_the_reset_page_sets_a_password(client: Client) -> None:
    account = await Account.create(email="a@example.org", email_key="a@example.org", password_hash="-")
    token = await mailed_token(account, TokenPurpose.RESET_PASSWORD)
    shown = await client.http.get("/reset-password", params={"token": token})
    # The rule stands there before it is broken; a browser that cut what is pasted would set another one.
    assert ("8 to 128 characters" in shown.text, "maxlength" in shown.text) == (True, False)
    weak = await client.http.post("/reset-password", data={"token": token, "password": "short"})
    assert weak.status_code == 400
    assert "8 to 128" in weak.text
    none = await client.http.post("/reset-password", data={"token": token, "password": ""})
    assert (none.status_code, "8 to 128" in none.text) == (400, True)
    done = await client.http.post("/reset-password", data={"token": token, "password": PASSWORD})
    assert done.status_code == 200
    assert (await client.signed_in("a@example.org")).token
    used = await client.http.post("/reset-password", data={"token": token, "password": PASSWORD})
    assert used.status_code == 400
    # It leads on, rather than ask for a password that cannot be set.
    assert ("Open the studio" in used.text, "<form" in used.text) == (True, False)


@pytest.mark.parametrize("limit_settings", [LimitSettings(signin_attempts_per_minute=1)])
async def test_the_reset_page_takes_no_more_guesses_than_signing_in_does(
    client: Client, limit_settings: LimitSettings
) -> None:
    guess = {"token": "-", "password": PASSWORD}
    assert "not valid any more" in (await client.http.post("/reset-password", data=guess)).text
    refused = await client.http.post("/reset-password", data=guess)
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.headers["ratelimit"] == f'"signin";r=0;t={refused.headers["retry-after"]}'
    assert refused.headers["ratelimit-policy"] == '"signin";q=1;w=60'
    assert "Too many attempts" in refused.text
