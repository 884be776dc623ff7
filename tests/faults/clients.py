"""Customers who ask for pictures through whatever happens, and note what they were answered."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID

import httpx

from core.lifecycle import Delivery, GenerationState, Scheduler
from core.messages import Parameters
from schema.types.node import from_global_id, to_global_id
from tests.faults.invariants import Asked
from tests.faults.service import MODEL, PASSWORD, Customer, Service

_SIGNIN: Final = """
mutation ($input: SigninInput!) {
  signin(input: $input) { __typename ... on Session { accessToken } ... on UserError { message } }
}
"""
_GENERATE: Final = """
mutation ($input: GenerateInput!) {
  generate(input: $input) { __typename ... on Generation { id } ... on UserError { message } }
}
"""
_GENERATION: Final = "query ($id: ID!) { generation(id: $id) { state images { url sha256 } } }"

_ANSWER_SECONDS: Final = 6.0
_PAUSE: Final = 0.3
_TRIES: Final = 200
_ALONE_SEEDS: Final = 6
_GUIDED: Final = 0.03
"""Of all requests: their negative prompt has a say, so that each has to be made alone to be compared."""

_PROMPTS: Final = ("a red house by the sea", "a blue boat at night", "a green tent on snow")
_numbers = itertools.count(1)


@dataclass
class Clients:
    """The customers of one scenario, with their journal.

    Args:
        service: where they ask.
        customers: who they are.
        rng: decides what they ask for.
        mailed: the share of premium requests that are to come by e-mail.
    """

    service: Service
    customers: Sequence[Customer]
    rng: random.Random
    mailed: float = 0.3
    journal: dict[str, Asked] = field(default_factory=dict)
    refusals: int = 0
    """Answers that were none: errors of the network, statuses of 500 and above, errors without data."""
    _tokens: dict[str, str] = field(default_factory=dict)
    _http: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(timeout=_ANSWER_SECONDS))

    @property
    def accepted(self) -> list[Asked]:
        """What was answered with a generation."""
        return [asked for asked in self.journal.values() if asked.generation is not None]

    async def close(self) -> None:
        """Leave."""
        await self._http.aclose()

    async def ask_until(self, stop: asyncio.Event, *, at_a_time: int = 4, pause: float = 0.4) -> None:
        """Ask on until told to stop."""
        turns = itertools.cycle(self.customers)

        async def one() -> None:
            while not stop.is_set():
                customer = next(turns)
                by_mail = not customer.premium or self.rng.random() < self.mailed
                delivery = Delivery.EMAIL if by_mail else Delivery.DOWNLOAD
                await self.ask(customer, self._wish(), delivery=delivery)
                await asyncio.sleep(pause)

        await asyncio.gather(*(one() for _ in range(at_a_time)))

    async def hear(self, *, seconds: float) -> None:
        """Have every owner asked how it ended, until all have ended or the time is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        places = asyncio.Semaphore(8)

        async def one(asked: Asked) -> None:
            async with places:
                answer = await self._try(asked.email, _GENERATION, _id_of(asked))
            if answer is not None and answer["generation"] is not None:
                state = GenerationState(answer["generation"]["state"])
                self.journal[asked.key] = replace(asked, told=state)

        while loop.time() < deadline:
            waiting = [asked for asked in self.accepted if asked.told is None or not asked.told.terminal]
            if not waiting:
                return
            await asyncio.gather(*(one(asked) for asked in waiting))
            await asyncio.sleep(_PAUSE)

    async def download(self, asked: Asked) -> list[bytes]:
        """The pictures behind the links that the owner is given."""
        answer = await self._try(asked.email, _GENERATION, _id_of(asked))
        assert answer is not None
        found = [await self._http.get(image["url"]) for image in answer["generation"]["images"]]
        assert all(response.status_code == 200 for response in found)
        return [response.content for response in found]

    def _wish(self) -> Parameters:
        rng = self.rng
        guided = rng.random() < _GUIDED
        return Parameters(
            prompt=rng.choice(_PROMPTS),
            model=MODEL,
            width=64,
            height=64,
            steps=rng.choice((1, 2)),
            guidance_scale=4.0 if guided else 1.0,
            seed=rng.randrange(_ALONE_SEEDS),
            count=rng.choice((1, 1, 1, 2)),
            scheduler=rng.choice((Scheduler.DDIM, Scheduler.EULER)),
        )

    async def ask(self, customer: Customer, wanted: Parameters, *, delivery: Delivery) -> str:
        """Ask for this, marked by a negative prompt, until it is answered; returns its key in the journal."""
        key = f"key-{next(_numbers):06}"
        wanted = wanted.model_copy(update={"negative_prompt": key})
        asked = Asked(key=key, email=customer.email, parameters=wanted, delivery=delivery, generation=None)
        self.journal[key] = asked
        variables = {
            "input": {
                "prompt": wanted.prompt,
                "negativePrompt": wanted.negative_prompt,
                "width": wanted.width,
                "height": wanted.height,
                "steps": wanted.steps,
                "guidanceScale": wanted.guidance_scale,
                "seed": wanted.seed,
                "count": wanted.count,
                "scheduler": wanted.scheduler.value,
                "delivery": asked.delivery.value,
                "idempotencyKey": asked.key,
            }
        }
        for _ in range(_TRIES):
            answer = await self._try(asked.email, _GENERATE, variables)
            if answer is not None:
                result = answer["generate"]
                assert result["__typename"] == "Generation", result
                named = from_global_id(result["id"])
                assert named is not None
                self.journal[key] = replace(asked, generation=str(named[1]))
                break
            await asyncio.sleep(_PAUSE)
        return key

    async def _try(self, email: str, query: str, variables: dict[str, Any]) -> dict[str, Any] | None:
        """The answer's data, or none: as good as no answer, so the same may be asked again."""
        if email not in self._tokens:
            signin = await self._post(_SIGNIN, {"input": {"email": email, "password": PASSWORD}}, {})
            if signin is None:
                return None
            self._tokens[email] = signin["signin"]["accessToken"]
        return await self._post(query, variables, {"authorization": f"Bearer {self._tokens[email]}"})

    async def _post(
        self, query: str, variables: dict[str, Any], headers: dict[str, str]
    ) -> dict[str, Any] | None:
        url = f"{self.rng.choice(self.service.urls)}/graphql"
        try:
            response = await self._http.post(
                url, json={"query": query, "variables": variables}, headers=headers
            )
        except httpx.TransportError:
            self.refusals += 1
            return None
        answer: dict[str, Any] = response.json() if response.status_code < 500 else {}
        if answer.get("errors") or not answer.get("data"):
            self.refusals += 1
            return None
        data: dict[str, Any] = answer["data"]
        return data


def _id_of(asked: Asked) -> dict[str, str]:
    assert asked.generation is not None
    return {"id": to_global_id("Generation", UUID(asked.generation))}
