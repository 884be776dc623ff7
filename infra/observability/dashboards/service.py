"""The whole service: its objectives, what customers get, what waits where."""

from typing import Final

from infra.observability.dashboards.panels import quantile, rate
from infra.observability.grafana import Dashboard, Panel


def _share(title: str, record: str, *, limit: float, width: int = 5) -> Panel:
    """The share of bad events, a recording rule, and how large it may be."""
    return Panel(title=title, queries={"": record}, unit="percentunit", kind="stat", limit=limit, width=width)


SERVICE: Final = Dashboard(
    uid="darkroom-service",
    title="Darkroom: the service",
    rows={
        "Objectives: share of bad events over an hour": (
            _share("Premium begun later than 2 s", "darkroom:premium_start_late:ratio_rate1h", limit=0.01),
            _share("GraphQL errors of ours", "darkroom:graphql_errors:ratio_rate1h", limit=0.001),
            _share("Generations FAILED", "darkroom:generations_failed:ratio_rate1h", limit=0.005),
            _share("Letters later than 5 min", "darkroom:letters_late:ratio_rate1h", limit=0.01),
            _share("Windows over 30 min, a day", "darkroom:windows_late:ratio_rate1d", limit=0.01, width=4),
        ),
        "What customers get": (
            Panel(
                title="Generations accepted",
                queries={"{{tier}}": rate("darkroom_generations_accepted_total", by="tier")},
                unit="ops",
            ),
            Panel(
                title="Generations ended",
                queries={"{{tier}} {{state}}": rate("darkroom_generations_finished_total", by="tier, state")},
                unit="ops",
            ),
            Panel(
                title="Premium: to the first step, and to the end",
                queries={
                    "first step, p50": quantile(0.5, "darkroom_first_step_seconds", where='{tier="PREMIUM"}'),
                    "first step, p99": "darkroom:premium_start_seconds:p99_5m",
                    "end, p99": quantile(0.99, "darkroom_generation_seconds", where='{tier="PREMIUM"}'),
                },
                unit="s",
            ),
        ),
        "What waits where": (
            Panel(
                title="Generations that have not ended",
                queries={"{{tier}} {{state}}": "max by (tier, state) (darkroom_generations_open)"},
            ),
            Panel(
                title="Messages that wait for a reader",
                queries={"{{stream}} {{consumer}}": "darkroom:consumer_waiting:max"},
            ),
            Panel(
                title="Messages that readers hold",
                queries={
                    "{{stream}} {{consumer}}": "max by (stream, consumer) (darkroom_consumer_unanswered)"
                },
            ),
            Panel(
                title="Accepted and not on the broker",
                queries={"jobs": "max(darkroom_jobs_unpublished)"},
                limit=50,
                about="The outbox. More than a few for more than seconds: the broker is away.",
            ),
            Panel(
                title="Messages in streams",
                queries={"{{stream}}": "max by (stream) (darkroom_stream_messages)"},
            ),
            Panel(
                title="Jobs relayed, lost, dead",
                queries={
                    "relayed": rate("darkroom_jobs_relayed_total"),
                    "lost {{lane}}": rate("darkroom_jobs_lost_total", by="lane"),
                    "dead {{why}}": rate("darkroom_jobs_dead_total", by="why"),
                    "unattended": "max(darkroom_jobs_unattended)",
                },
            ),
        ),
        "Backing services": (
            Panel(
                title="PostgreSQL did not answer",
                queries={"{{job}}": rate("darkroom_database_unavailable_total", by="job")},
                unit="ops",
            ),
            Panel(
                title="Publishing, p99 and failures",
                queries={
                    "{{outcome}}, p99": quantile(0.99, "darkroom_publish_seconds", by="outcome"),
                    "refused {{what}}, a second": rate("darkroom_broker_refusals_total", by="what"),
                },
                unit="s",
            ),
            Panel(
                title="Object store, p99",
                queries={
                    "{{operation}} {{outcome}}": quantile(
                        0.99, "darkroom_storage_seconds", by="operation, outcome"
                    )
                },
                unit="s",
            ),
        ),
    },
)
