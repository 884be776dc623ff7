"""When a job's pictures came how far, as its trace tells it."""

from core import tracing
from core.otlp import OtlpTracer
from gpu_worker.timeline import Timeline
from infra.observability.receiver import Receiver


def told(timeline: Timeline) -> dict[str, tuple[float, float, dict[str, str]]]:
    with Receiver().serving() as receiver:
        tracing.start(OtlpTracer(url=receiver.url, share=1.0, process="test"))
        with tracing.span("job"):
            timeline.tell()
        tracing.stop()
        return {
            span.name: (span.began, span.ended, dict(span.attributes))
            for span in receiver.spans
            if span.name != "job"
        }


def test_all_steps_are_one_span_between_embedding_and_decoding() -> None:
    moments = iter([1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0])
    timeline = Timeline(clock=lambda: next(moments))
    timeline.submitted()
    timeline.joined()
    timeline.joined()
    for _ in range(3):
        timeline.stepped()
    timeline.ended()
    timeline.ended()
    assert told(timeline) == {
        "embed prompts": (1.0, 2.0, {}),
        "denoise": (2.0, 3.5, {"darkroom.steps": "3", "darkroom.first_step_seconds": "0.5"}),
        "decode": (3.5, 5.0, {}),
    }


def test_of_a_job_that_never_got_so_far_nothing_is_told() -> None:
    timeline = Timeline(clock=lambda: 1.0)
    timeline.submitted()
    timeline.ended()
    assert told(timeline) == {}
