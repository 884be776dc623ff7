"""Operations as a customer sends them."""

from collections.abc import Mapping
from typing import Any

import httpx

from benchmarks.processes import BenchmarkError


async def execute(
    http: httpx.AsyncClient, document: str, variables: Mapping[str, Any], *, token: str | None = None
) -> dict[str, Any]:
    """The data that the api at the address of ``http`` answers, to whom ``token`` is for.

    Raises:
        BenchmarkError: it answers errors.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = await http.post("/graphql", json={"query": document, "variables": variables}, headers=headers)
    told: dict[str, Any] = answer.raise_for_status().json()
    if told.get("errors"):
        raise BenchmarkError(f"the api answers {told['errors']}")
    data: dict[str, Any] = told["data"]
    return data
