"""What customers' commands say where a limit of the service is reached."""

import asyncio
import re

import pytest

from core.settings import LimitSettings
from tests.console.conftest import Darkroom
from tests.graphql_client import Client
from tests.served_api import api_settings, client, listener, parts, payment_settings

__all__ = ["api_settings", "client", "listener", "parts", "payment_settings"]


@pytest.fixture
def limit_settings() -> LimitSettings:
    return LimitSettings(signin_attempts_per_minute=1)


async def test_who_has_no_attempt_left_is_told_once_when_there_is_one(
    client: Client, darkroom: Darkroom
) -> None:
    for _ in range(2):
        refused = await asyncio.to_thread(
            darkroom,
            *("signin", "a@example.org", "--password", "guess"),
            DARKROOM_URL=f"http://127.0.0.1:{client.port}",
        )
    assert refused.returncode == 4
    said = refused.stderr.strip()
    assert re.fullmatch(r"darkroom: Too many attempts\. Try again in \d+ seconds\.", said), said
