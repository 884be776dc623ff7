"""The application in the test's own process: thousands of cases over a real database and a real broker."""

import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from api.app import Parts, build_app
from api.settings import ApiSettings
from tests.audit.report import Report
from tests.graphql_client import PASSWORD, SIGNIN


@dataclass
class Application:
    """Counts the cases that it is tried with, and looks at what each brings."""

    http: httpx.AsyncClient
    records: pytest.LogCaptureFixture
    tried: int = 0
    statuses: dict[int, int] = field(default_factory=dict)

    async def send(self, method: str, path: str, **content: Any) -> httpx.Response:
        """One case: no server error, and nothing in the logs that an operator would have to look at."""
        self.tried += 1
        self.records.clear()
        with capture_logs() as told:
            self.http.cookies.update(content.pop("cookies", None) or {})
        answer = await self.http.request(method, path, **content)
        self.statuses[answer.status_code] = self.statuses.get(answer.status_code, 0) + 1
        assert answer.status_code < 500, answer.text
        assert [one for one in told if one["log_level"] in ("error", "critical")] == []
        assert [one for one in self.records.records if one.levelno >= logging.ERROR] == []
        assert "Traceback" not in answer.text
        return answer

    async def ask(self, query: str, variables: Any = None, *, token: str | None = None) -> dict[str, Any]:
        """One GraphQL case: no error of ours either."""
        # As a client may write it: with NaN, and with halves of surrogate pairs as escapes.
        body = json.dumps({"query": query, "variables": variables})
        headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {token}"} if token else {}
        )
        answer = await self.send("POST", "/graphql", content=body, headers=headers)
        found: dict[str, Any] = answer.json()
        for error in found.get("errors", []):
            code = error.get("extensions", {}).get("code")
            assert code not in ("INTERNAL", "SERVICE_UNAVAILABLE", "TIMEOUT"), (error, query, variables)
        return found

    async def sign_in(self, email: str) -> str:
        """An access token."""
        answer = await self.http.post(
            "/graphql",
            json={"query": SIGNIN, "variables": {"input": {"email": email, "password": PASSWORD}}},
        )
        token: str = answer.json()["data"]["signin"]["accessToken"]
        return token


@pytest.fixture
async def application(
    request: pytest.FixtureRequest,
    api_settings: ApiSettings,
    parts: Parts,
    caplog: pytest.LogCaptureFixture,
    report: Report,
) -> AsyncIterator[Application]:
    """The application; at the end it was tried with as many cases as the test says."""
    transport = httpx.ASGITransport(app=build_app(api_settings, parts), client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as http:
        tried = Application(http=http, records=caplog)
        yield tried
    statuses = ", ".join(f"{count} of {status}" for status, count in sorted(tried.statuses.items()))
    name = request.node.name.removeprefix("test_").replace("_", " ")
    report.add(name, "HTTP", statuses, verdict=f"{tried.tried} cases, no error of ours")
    assert tried.tried >= request.function.cases
