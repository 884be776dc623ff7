"""What the documents say to type is typed, against the running stack."""

import asyncio
import os
import re
import subprocess
import sys
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import pytest
from graphql import OperationType, get_operation_ast, parse

from infra.docs.reference import EXAMPLES
from tests.docs.blocks import BLOCKS, REPOSITORY, Block
from tests.stack import PASSWORD, Customer, Stack

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]

_MARKER = "@@block {}@@"
_SECONDS = 200
REFERENCE = "docs/reference/"


def _runnable(language: str) -> list[Block]:
    # The reference's blocks are the examples, which are sent below.
    return [
        block
        for block in BLOCKS
        if block.language == language and not block.not_run and not block.document.startswith(REFERENCE)
    ]


SCRIPTS = {
    document: list(blocks) for document, blocks in groupby(_runnable("sh"), key=attrgetter("document"))
}


def _as_here(text: str, stack: Stack) -> str:
    """With this stack's address and password in place of those that the documents use."""
    address = stack.urls[0].removeprefix("http://")
    named = text.replace("127.0.0.1:8000", address).replace("a password of mine", PASSWORD)
    return named.replace(".venv/bin/darkroom", "darkroom").replace(".venv/bin/python", "python")


@pytest.fixture
def environment(stack: Stack, tmp_path: Path) -> dict[str, str]:
    """A shell's, in which `darkroom` and `python` are those of this environment."""
    programs = tmp_path / "bin"
    programs.mkdir()
    darkroom = programs / "darkroom"
    darkroom.write_text(f'#!/bin/sh\nexec {sys.executable} -m console "$@"\n')
    darkroom.chmod(0o755)
    return {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "HOME": str(tmp_path),
        "DARKROOM_HOME": str(stack.home),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
    }


def _script(blocks: list[Block], stack: Stack) -> str:
    parts = ["set -euo pipefail", "exec 2>&1"]
    for number, block in enumerate(blocks):
        text = _as_here(block.text, stack)
        parts.append(f"echo '{_MARKER.format(number)}'")
        expected = f'(\n{text}) || status=$?; [ "${{status-0}}" = {block.fails} ]'
        parts.append(expected if block.fails else text)
    return "\n".join(parts)


@pytest.mark.parametrize("document", SCRIPTS)
async def test_what_a_page_says_to_type_into_a_shell_works(
    document: str, stack: Stack, environment: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    blocks = SCRIPTS[document]
    done = await asyncio.to_thread(
        subprocess.run,
        ["bash", "-c", _script(blocks, stack)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    assert done.returncode == 0, done.stdout
    # What a GraphQL answer of a block has to say of itself.
    assert '"errors"' not in done.stdout, done.stdout
    outputs = re.split(r"@@block \d+@@\n", done.stdout)[1:]
    for block, output in zip(blocks, outputs, strict=True):
        for text in block.prints:
            assert _as_here(text, stack) in output, f"{block}: {output}"


@pytest.mark.parametrize("block", _runnable("python"), ids=str)
async def test_python_of_the_pages_runs(
    block: Block, stack: Stack, environment: dict[str, str], tmp_path: Path
) -> None:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _as_here(block.text, stack)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    for text in block.prints:
        assert text in done.stdout, done.stdout


@pytest.mark.parametrize("block", _runnable("graphql"), ids=str)
async def test_graphql_of_the_pages_is_answered(block: Block, stack: Stack) -> None:
    premium = await Customer(stack.urls[0], "premium@darkroom.local").sign_in()
    answer = await premium.execute(_as_here(block.text, stack))
    for text in block.prints:
        assert text in str(answer), answer


def _example(name: str, **values: str) -> str:
    text = (REPOSITORY / EXAMPLES / f"{name}.graphql").read_text()
    for placeholder, value in {"a password of mine": PASSWORD, **values}.items():
        text = text.replace(placeholder, value)
    return text


# Those that end sessions and accounts come last, each as it is meant for the one before it.
_ORDER = [
    "me",
    "rateLimit",
    "models",
    "offers",
    "service",
    "generate",
    "generations",
    "generation",
    "node",
    "generationStatus",
    "cancelGeneration",
    "setReminders",
    "buyPremium",
    "redeemVoucher",
    "signup",
    "verifyEmail",
    "requestPasswordReset",
    "resetPassword",
    "signin",
    "refreshSession",
    "signoutEverywhere",
]
_WITH_A_SESSION = ("changePassword", "signout", "deleteAccount")
_NOT_A_GOOD_ONE = {"verifyEmail", "resetPassword", "refreshSession", "redeemVoucher"}
"""Examples with a token or a code that was made up: the answer has to say so."""


def test_every_operation_has_an_example_that_is_sent() -> None:
    files = {path.stem for path in (REPOSITORY / EXAMPLES).glob("*.graphql")}
    assert files == {*_ORDER, *_WITH_A_SESSION}


async def test_the_examples_of_the_reference_are_answered(stack: Stack) -> None:
    premium = await Customer(stack.urls[0], "premium@darkroom.local").sign_in()
    generation_id = await premium.generate(prompt="a tent", steps=1)
    await premium.watch_to_end(generation_id)
    for name in _ORDER:
        document = _example(name, GENERATION_ID=generation_id, **{"house-1": os.urandom(8).hex()})
        operation = get_operation_ast(parse(document))
        assert operation
        if operation.operation is OperationType.SUBSCRIPTION:
            events = [event async for event in premium.subscribe(document)]
            assert events[-1][name]["state"] == "SUCCEEDED"
            continue
        [answer] = (await premium.execute(document)).values()
        assert answer is not None, name
        if name in _NOT_A_GOOD_ONE:
            assert "message" in answer, answer


async def test_the_examples_that_need_a_password_of_ones_own_are_answered(stack: Stack) -> None:
    customer = await stack.new_customer()
    changed = await customer.execute(_example("changePassword"))
    assert changed["changePassword"]["email"] == customer.email
    await customer.execute(_example("signout"))
    await customer.sign_in("another password of mine")
    document = _example("deleteAccount", **{PASSWORD: "another password of mine"})
    assert "message" in (await customer.execute(document))["deleteAccount"]
    with pytest.raises(KeyError, match="accessToken"):
        await customer.sign_in("another password of mine")
