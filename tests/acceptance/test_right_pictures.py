"""The right picture reaches the right customer: the bundled model follows its prompt, so pixels can tell."""

import asyncio
import io
from datetime import UTC, datetime

import pytest
from PIL import Image

from gpu_worker.demo_model.measures import look_at
from gpu_worker.demo_model.scenes import Colour, Time
from tests.stack import Stack

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(300)]

ASKED = (
    ("a red house in a meadow by day", Colour.RED, Time.DAY),
    ("a blue boat on the sea at sunset", Colour.BLUE, Time.SUNSET),
    ("a green tree in the snow at night", Colour.GREEN, Time.NIGHT),
    ("a yellow balloon over the sea at sunset", Colour.YELLOW, Time.SUNSET),
    ("a purple lighthouse on a beach by day", Colour.PURPLE, Time.DAY),
    ("an orange tent in the snow at night", Colour.ORANGE, Time.NIGHT),
    ("a turquoise car on the sand at sunset", Colour.TURQUOISE, Time.SUNSET),
    ("a pink windmill on the grass at night", Colour.PINK, Time.NIGHT),
    ("a red boat on the sea by day", Colour.RED, Time.DAY),
    ("a blue house in the snow by day", Colour.BLUE, Time.DAY),
    ("a green house on a beach at sunset", Colour.GREEN, Time.SUNSET),
    ("a yellow lighthouse by the sea at night", Colour.YELLOW, Time.NIGHT),
)


async def test_each_of_twelve_customers_in_one_window_gets_the_picture_of_their_own_prompt(
    stack: Stack,
) -> None:
    customers = [await stack.new_customer() for _ in ASKED]
    # Ask right after a window has opened, so that all wait for the next one.
    await asyncio.sleep((await customers[0].next_window_at() - datetime.now(UTC)).total_seconds() + 0.3)
    opening = await customers[0].next_window_at()
    await asyncio.gather(
        *(
            customer.generate(prompt=prompt, seed=seed)
            for seed, (customer, (prompt, *_)) in enumerate(zip(customers, ASKED, strict=True))
        )
    )
    assert await customers[0].next_window_at() == opening

    for customer, (prompt, colour, time) in zip(customers, ASKED, strict=True):
        letter = await stack.letter(customer.email, "window_finished", seconds=200)
        [attachment] = letter.iter_attachments()
        with Image.open(io.BytesIO(attachment.get_content())) as picture:
            assert prompt in picture.text["parameters"]  # type: ignore[attr-defined] # a PNG's
            seen = look_at(picture)
        assert (seen.colour, seen.time) == (colour, time), prompt
