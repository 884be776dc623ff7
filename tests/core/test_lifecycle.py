import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.lifecycle import FOLLOWING, OPEN_STATES, GenerationState, ImageFormat, preceding

STATES = st.sampled_from(GenerationState)


@given(STATES)
def test_a_terminal_state_never_changes(state: GenerationState) -> None:
    if state.terminal:
        assert not any(state in preceding(after) for after in GenerationState)


@given(STATES, STATES)
def test_the_guard_of_an_update_is_the_lifecycle_read_backwards(
    before: GenerationState, after: GenerationState
) -> None:
    assert (before in preceding(after)) == (after in FOLLOWING[before])


def test_only_waiting_and_running_are_open() -> None:
    assert {GenerationState.QUEUED, GenerationState.RUNNING} == OPEN_STATES


def test_nothing_leads_back_to_queued() -> None:
    assert preceding(GenerationState.QUEUED) == frozenset()


@pytest.mark.parametrize(
    ("image_format", "content_type", "extension"),
    [
        (ImageFormat.PNG, "image/png", "png"),
        (ImageFormat.JPEG, "image/jpeg", "jpg"),
        (ImageFormat.WEBP, "image/webp", "webp"),
    ],
)
def test_formats_name_their_media_type(image_format: ImageFormat, content_type: str, extension: str) -> None:
    assert (image_format.content_type, image_format.extension) == (content_type, extension)
