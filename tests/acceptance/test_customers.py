"""The ways of a normal and of a premium customer, from the first request to the pictures."""

import asyncio
import hashlib
import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from gql.transport.exceptions import TransportQueryError
from PIL import Image

from tests.stack import SMALL, Customer, Stack, download

pytestmark = pytest.mark.acceptance


def states(events: list[dict[str, Any]]) -> list[str]:
    """The states in their order, each once."""
    seen: list[str] = []
    for event in events:
        if not seen or seen[-1] != event["state"]:
            seen.append(event["state"])
    return seen


async def test_a_normal_customer_gets_the_pictures_by_letter_after_the_window(
    stack: Stack, normal: Customer
) -> None:
    asked_at = datetime.now(UTC)
    window_at = await normal.next_window_at()
    assert -1 < (window_at - asked_at).total_seconds() <= 7
    generation_id = await normal.generate(prompt="a red house", width=128, height=64, count=2)
    events = await normal.watch_to_end(generation_id)
    assert events[0]["state"] == "QUEUED"
    assert events[0]["etaSeconds"] is not None
    assert datetime.fromisoformat(events[0]["generation"]["estimatedFinishAt"]) > window_at
    assert states(events) in (["QUEUED", "RUNNING", "SUCCEEDED"], ["QUEUED", "SUCCEEDED"])
    assert [image["url"] for image in events[-1]["generation"]["images"]] == [None, None]

    letter = await stack.letter(normal.email, "window_finished")
    attachments = list(letter.iter_attachments())
    assert len(attachments) == 2
    for part, image in zip(attachments, events[-1]["generation"]["images"], strict=True):
        content = part.get_content()
        assert part.get_content_type() == "image/png"
        assert hashlib.sha256(content).hexdigest() == image["sha256"]
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            assert picture.size == (128, 64)
    html = letter.get_body(("html",))
    assert html is not None
    assert "cid:" in html.get_content()


async def test_a_premium_customer_watches_and_downloads(premium: Customer) -> None:
    generation_id = await premium.generate(
        prompt="a lighthouse in the fog", steps=50, count=4, seed=7, **SMALL
    )
    events = await premium.watch_to_end(generation_id)
    assert states(events) in (["QUEUED", "RUNNING", "SUCCEEDED"], ["RUNNING", "SUCCEEDED"])
    steps = [event["step"] for event in events]
    assert steps == sorted(steps)
    assert any(0 < event["step"] < 50 for event in events if event["state"] == "RUNNING")
    assert (events[-1]["step"], events[-1]["fraction"]) == (50, 1.0)
    images = events[-1]["generation"]["images"]
    assert [image["seed"] for image in images] == [7, 8, 9, 10]
    for image in images:
        answer = await download(image["url"])
        content = answer.content
        assert answer.headers["Content-Type"] == "image/png"
        assert hashlib.sha256(content).hexdigest() == image["sha256"]
        assert len(content) == image["byteSize"]
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.size == (image["width"], image["height"])
            assert "a lighthouse in the fog" in picture.text["parameters"]  # type: ignore[attr-defined] # a PNG's


async def test_the_same_seed_gives_the_same_file_and_another_seed_another_picture(premium: Customer) -> None:
    files = []
    for seed in (11, 11, 12):
        events = await premium.watch_to_end(await premium.generate(prompt="a boat", seed=seed, **SMALL))
        answer = await download(events[-1]["generation"]["images"][0]["url"])
        files.append(answer.content)
    assert files[0] == files[1]
    first, other = (Image.open(io.BytesIO(content)).tobytes() for content in files[1:])
    assert first != other


@pytest.mark.parametrize(("image_format", "content_type"), [("JPEG", "image/jpeg"), ("WEBP", "image/webp")])
async def test_pictures_come_in_the_format_asked_for(
    premium: Customer, image_format: str, content_type: str
) -> None:
    events = await premium.watch_to_end(await premium.generate(prompt="a boat", format=image_format, **SMALL))
    image = events[-1]["generation"]["images"][0]
    answer = await download(image["url"])
    assert answer.headers["Content-Type"] == content_type
    assert Image.open(io.BytesIO(answer.content)).format == image_format


async def test_a_premium_customer_may_ask_for_a_letter(stack: Stack, premium: Customer) -> None:
    before = len(stack.letters(premium.email, "generation_finished"))
    generation_id = await premium.generate(prompt="a boat", delivery="EMAIL", **SMALL)
    events = await premium.watch_to_end(generation_id)
    image = events[-1]["generation"]["images"][0]
    assert image["url"] is None
    letter = await stack.letter(premium.email, "generation_finished", after=before)
    [attachment] = letter.iter_attachments()
    assert hashlib.sha256(attachment.get_content()).hexdigest() == image["sha256"]


async def test_who_subscribes_after_the_end_gets_one_event(premium: Customer) -> None:
    generation_id = await premium.generate(prompt="a boat", **SMALL)
    await premium.watch_to_end(generation_id)
    assert [event["state"] for event in await premium.watch_to_end(generation_id)] == ["SUCCEEDED"]


async def test_a_subscription_at_one_api_sees_a_job_of_the_other(stack: Stack, premium: Customer) -> None:
    elsewhere = Customer(stack.urls[1], premium.email, premium.token)
    generation_id = await premium.generate(prompt="a boat", steps=50, count=4, **SMALL)
    events = await elsewhere.watch_to_end(generation_id)
    assert events[-1]["state"] == "SUCCEEDED"
    assert any(event["state"] == "RUNNING" for event in events)


async def test_one_letter_for_all_pictures_of_a_window(stack: Stack, normal: Customer) -> None:
    ids = [await normal.generate(prompt=f"house {number}", **SMALL) for number in range(3)]
    await asyncio.gather(*(normal.watch_to_end(generation_id) for generation_id in ids))
    await stack.letter(normal.email, "window_finished")
    await asyncio.sleep(1)
    letters = stack.letters(normal.email, "window_finished")
    pictures = sum(len(list(letter.iter_attachments())) for letter in letters)
    # The three may have been asked for on both sides of a tick.
    assert (len(letters), pictures) in ((1, 3), (2, 3))


async def test_a_voucher_makes_a_normal_customer_premium(
    normal: Customer, darkroom: Callable[..., str]
) -> None:
    code = darkroom("voucher", "create", "--days", "30")
    document = """
    mutation ($code: String!) { redeemVoucher(code: $code) { __typename ... on Account { tier } } }
    """
    redeemed = await normal.execute(document, code=code)
    assert redeemed["redeemVoucher"] == {"__typename": "Account", "tier": "PREMIUM"}
    events = await normal.watch_to_end(await normal.generate(prompt="a boat", **SMALL))
    assert events[-1]["generation"]["images"][0]["url"]
    assert "PREMIUM" in darkroom("account", "show", normal.email)


async def test_download_on_the_normal_tier_is_refused(normal: Customer) -> None:
    document = """
    mutation { generate(input: { prompt: "x", delivery: DOWNLOAD }) { __typename } }
    """
    assert (await normal.execute(document))["generate"]["__typename"] == "PremiumRequired"


async def test_without_a_token_the_api_says_so(stack: Stack) -> None:
    nobody = Customer(stack.urls[0], "nobody@example.org")
    with pytest.raises(TransportQueryError) as refused:
        await nobody.execute('mutation { generate(input: { prompt: "x" }) { __typename } }')
    assert refused.value.errors is not None
    assert refused.value.errors[0]["extensions"]["code"] == "UNAUTHENTICATED"


async def test_a_link_that_was_changed_is_refused(premium: Customer) -> None:
    events = await premium.watch_to_end(await premium.generate(prompt="a boat", **SMALL))
    url = events[-1]["generation"]["images"][0]["url"]
    changed = url[:-1] + ("0" if url[-1] != "0" else "1")
    assert (await download(changed)).status_code == 403
