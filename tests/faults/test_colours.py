"""The bundled model paints what it is asked for, so that pixels tell whether a picture is somebody else's."""

import asyncio
import io
import random
from pathlib import Path

import pytest
from PIL import Image

from core.lifecycle import Delivery, GenerationState, Scheduler
from core.messages import Parameters
from gpu_worker.demo_model import WEIGHTS
from gpu_worker.demo_model.measures import look_at
from gpu_worker.demo_model.scenes import Colour, Time
from tests.faults.clients import Clients
from tests.faults.service import MODEL, running
from tests.faults.trial import Note

pytestmark = [pytest.mark.faults, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

ASKED = (
    ("a red house in a meadow by day", Colour.RED, Time.DAY),
    ("a blue boat on the sea at sunset", Colour.BLUE, Time.SUNSET),
    ("a green tree in the snow at night", Colour.GREEN, Time.NIGHT),
    ("a yellow balloon over the sea at sunset", Colour.YELLOW, Time.SUNSET),
    ("a purple lighthouse on a beach by day", Colour.PURPLE, Time.DAY),
    ("an orange tent in the snow at night", Colour.ORANGE, Time.NIGHT),
    ("a turquoise car on the sand at sunset", Colour.TURQUOISE, Time.SUNSET),
    ("a pink windmill on the grass at night", Colour.PINK, Time.NIGHT),
)
EACH = 3
CHARGES = {"gpu_worker": "tick.before_step=kill:10", "gpu_worker-2": "outcome.before_publish=kill:2"}


async def test_everybody_gets_their_own_picture_although_workers_die(
    server_folder: Path, seed: int, note: Note
) -> None:
    home = server_folder / "colours"
    home.mkdir(mode=0o755)
    async with running(home, model=WEIGHTS, brokers=1) as service:
        customers = await service.new_customers(normal=0, premium=len(ASKED), prefix="colours")
        clients = Clients(service=service, customers=customers, rng=random.Random(seed))  # noqa: S311
        for name, charge in CHARGES.items():
            service.nodes[name].charges.append(charge)
            await service.nodes[name].restart()
        wishes = [
            (customer, prompt, number)
            for customer, (prompt, *_) in zip(customers, ASKED, strict=True)
            for number in range(EACH)
        ]
        keys = await asyncio.gather(
            *(
                clients.ask(customer, wish(prompt, seed=number), delivery=Delivery.DOWNLOAD)
                for customer, prompt, number in wishes
            )
        )
        await clients.hear(seconds=180)
        kills = sum(service.nodes[name].kills().total() for name in CHARGES)
        assert kills == len(CHARGES)
        expected = {prompt: (colour, time) for prompt, colour, time in ASKED}
        for key in keys:
            asked = clients.journal[key]
            assert asked.told is GenerationState.SUCCEEDED, asked
            [data] = await clients.download(asked)
            with Image.open(io.BytesIO(data)) as picture:
                seen = look_at(picture)
            assert (seen.colour, seen.time) == expected[asked.parameters.prompt], asked
        await clients.close()
    note(f"pictures of the bundled model (seed {seed})", {"kills": kills, "pictures looked at": len(keys)})


def wish(prompt: str, *, seed: int) -> Parameters:
    return Parameters(
        prompt=prompt,
        model=MODEL,
        width=128,
        height=128,
        steps=20,
        guidance_scale=4.0,
        seed=seed,
        scheduler=Scheduler.DDIM,
    )
