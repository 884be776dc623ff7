"""In which order things beside the ticks are done."""

from functools import partial

import torch

from gpu_worker.engine.aside import aside_on


def test_premium_goes_first_and_then_what_a_slot_is_filled_with() -> None:
    aside = aside_on(torch.device("cpu"))
    done: list[str | Exception] = []
    for name, premium, feeds in (
        ("picture", False, False),
        ("prompt", False, True),
        ("premium picture", True, False),
        ("another prompt", False, True),
        ("premium prompt", True, True),
    ):
        aside.submit(partial(str, name), done.append, premium=premium, feeds=feeds)
    aside.between_ticks(lambda: False)
    assert done == ["premium prompt", "premium picture", "prompt", "another prompt", "picture"]


def test_while_premium_waits_for_a_tick_only_premium_is_served() -> None:
    aside = aside_on(torch.device("cpu"))
    done: list[str | Exception] = []
    aside.submit(lambda: "prompt", done.append, premium=False, feeds=True)
    aside.submit(lambda: "premium picture", done.append, premium=True)
    aside.between_ticks(lambda: True)
    assert done == ["premium picture"]
    assert aside.waiting
