"""``python -m infra.observability.dashboards``: writes Grafana's dashboards to ``dashboards.d/``.

The files are committed, so that whoever runs Grafana needs no Python, and a test compares the two.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from infra.observability.grafana import Dashboard, Panel

FOLDER: Final = Path(__file__).with_name("dashboards.d")


def _quantile(share: float, metric: str, *, by: str = "", where: str = "") -> str:
    labels = "le" if not by else f"le, {by}"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{where}[$__rate_interval])))"


def _rate(metric: str, *, by: str = "", where: str = "") -> str:
    grouped = f"sum by ({by}) " if by else "sum"
    return f"{grouped}(rate({metric}{where}[$__rate_interval]))"


def _per_process(job: str) -> Sequence[Panel]:
    """USE of the processes of one kind."""
    where = f'{{job="{job}"}}'
    return (
        Panel(
            title="CPU",
            queries={"{{instance}}": f"rate(process_cpu_seconds_total{where}[$__rate_interval])"},
            about="Cores in use.",
        ),
        Panel(
            title="Memory",
            queries={"{{instance}}": f"process_resident_memory_bytes{where}"},
            unit="bytes",
            about="Resident.",
        ),
        Panel(
            title="Event loop lag, p99",
            queries={
                "{{instance}}": _quantile(0.99, "darkroom_event_loop_lag_seconds", by="instance", where=where)
            },
            unit="s",
            limit=0.25,
            about="How late the process comes to what is due: above 0.1 s it does too much.",
        ),
    )


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
                queries={"{{tier}}": _rate("darkroom_generations_accepted_total", by="tier")},
                unit="ops",
            ),
            Panel(
                title="Generations ended",
                queries={
                    "{{tier}} {{state}}": _rate("darkroom_generations_finished_total", by="tier, state")
                },
                unit="ops",
            ),
            Panel(
                title="Premium: to the first step, and to the end",
                queries={
                    "first step, p50": _quantile(
                        0.5, "darkroom_first_step_seconds", where='{tier="PREMIUM"}'
                    ),
                    "first step, p99": "darkroom:premium_start_seconds:p99_5m",
                    "end, p99": _quantile(0.99, "darkroom_generation_seconds", where='{tier="PREMIUM"}'),
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
                    "relayed": _rate("darkroom_jobs_relayed_total"),
                    "lost {{lane}}": _rate("darkroom_jobs_lost_total", by="lane"),
                    "dead {{why}}": _rate("darkroom_jobs_dead_total", by="why"),
                    "unattended": "max(darkroom_jobs_unattended)",
                },
            ),
        ),
        "Backing services": (
            Panel(
                title="PostgreSQL did not answer",
                queries={"{{job}}": _rate("darkroom_database_unavailable_total", by="job")},
                unit="ops",
            ),
            Panel(
                title="Publishing, p99 and failures",
                queries={
                    "{{outcome}}, p99": _quantile(0.99, "darkroom_publish_seconds", by="outcome"),
                    "refused {{what}}, a second": _rate("darkroom_broker_refusals_total", by="what"),
                },
                unit="s",
            ),
            Panel(
                title="Object store, p99",
                queries={
                    "{{operation}} {{outcome}}": _quantile(
                        0.99, "darkroom_storage_seconds", by="operation, outcome"
                    )
                },
                unit="s",
            ),
        ),
    },
)

API: Final = Dashboard(
    uid="darkroom-api",
    title="Darkroom: api",
    rows={
        "GraphQL: rate, errors, duration": (
            Panel(
                title="Operations",
                queries={"{{operation}}": _rate("darkroom_graphql_seconds_count", by="operation")},
                unit="ops",
            ),
            Panel(
                title="Errors, by code",
                queries={
                    "{{code}}": _rate("darkroom_graphql_errors_total", by="code"),
                    "timeout {{operation}}": _rate("darkroom_graphql_timeouts_total", by="operation"),
                },
                unit="ops",
            ),
            Panel(
                title="Seconds per operation, p99",
                queries={"{{operation}}": _quantile(0.99, "darkroom_graphql_seconds", by="operation")},
                unit="s",
            ),
            Panel(
                title="Refused by a limit",
                queries={"{{action}}": _rate("darkroom_rate_limited_total", by="action")},
                unit="ops",
            ),
            Panel(
                title="Documents too large, by limit",
                queries={"{{limit}}": _rate("darkroom_documents_refused_total", by="limit")},
                unit="ops",
            ),
            Panel(
                title="Cost of operations, p99", queries={"cost": _quantile(0.99, "darkroom_graphql_cost")}
            ),
        ),
        "HTTP and websockets": (
            Panel(
                title="Requests",
                queries={"{{route}} {{status}}": _rate("darkroom_http_seconds_count", by="route, status")},
                unit="ops",
            ),
            Panel(
                title="Seconds per request, p99",
                queries={"{{route}}": _quantile(0.99, "darkroom_http_seconds", by="route")},
                unit="s",
            ),
            Panel(
                title="Websockets and subscriptions",
                queries={
                    "websockets {{instance}}": "darkroom_websockets",
                    "subscriptions {{instance}}": "darkroom_subscriptions",
                },
            ),
            Panel(
                title="Websockets closed by us, by code",
                queries={
                    "{{code}}": _rate("darkroom_websockets_closed_total", by="code"),
                    "slow readers": _rate("darkroom_slow_readers_total"),
                },
                unit="ops",
            ),
            Panel(
                title="Payments",
                queries={
                    "checkout {{outcome}}": _rate("darkroom_checkouts_total", by="outcome"),
                    "webhook {{outcome}}": _rate("darkroom_webhooks_total", by="outcome"),
                },
                unit="ops",
            ),
        ),
        "Resources": (
            *_per_process("api"),
            Panel(
                title="Database connections",
                queries={"{{state}} {{instance}}": 'darkroom_database_connections{job="api"}'},
                about="Idle at 0 while all are open: the pool is exhausted.",
            ),
            Panel(
                title="Wait for a connection, p99",
                queries={
                    "{{instance}}": _quantile(
                        0.99, "darkroom_database_wait_seconds", by="instance", where='{job="api"}'
                    )
                },
                unit="s",
                limit=0.5,
            ),
            Panel(
                title="File descriptors",
                queries={"{{instance}}": 'process_open_fds{job="api"} / process_max_fds{job="api"}'},
                unit="percentunit",
                limit=0.8,
            ),
        ),
    },
)

WORKERS: Final = Dashboard(
    uid="darkroom-workers",
    title="Darkroom: workers",
    rows={
        "Fleet": (
            Panel(title="Workers, by tier", queries={"{{tier}}": "darkroom:workers:max"}),
            Panel(title="Slots", queries={"{{state}}": "darkroom:worker_slots:max"}),
            Panel(
                title="Pictures a second",
                queries={"{{model}}": _rate("darkroom_images_total", by="model")},
                unit="ops",
            ),
        ),
        "Jobs": (
            Panel(
                title="Premium: from acceptance to a worker",
                queries={
                    "p50": _quantile(0.5, "darkroom_queue_seconds", where='{tier="PREMIUM"}'),
                    "p99": _quantile(0.99, "darkroom_queue_seconds", where='{tier="PREMIUM"}'),
                },
                unit="s",
            ),
            Panel(
                title="From acceptance to the first step, p99",
                queries={"{{tier}}": _quantile(0.99, "darkroom_first_step_seconds", by="tier")},
                unit="s",
            ),
            Panel(
                title="Pictures under way",
                queries={"{{tier}} {{instance}}": "darkroom_slots"},
                about="Paused ones included.",
            ),
        ),
        "Engine": (
            Panel(
                title="Pictures in a tick",
                queries={
                    "{{instance}}": (
                        "rate(darkroom_tick_pictures_sum[$__rate_interval])"
                        " / rate(darkroom_tick_pictures_count[$__rate_interval])"
                    )
                },
                about="Over the slot capacity it is the occupancy.",
            ),
            Panel(
                title="Seconds per tick, p50 and p99",
                queries={
                    "p50": _quantile(0.5, "darkroom_tick_seconds"),
                    "p99": _quantile(0.99, "darkroom_tick_seconds"),
                },
                unit="s",
            ),
            Panel(title="Slot capacity", queries={"{{instance}}": "darkroom_slot_capacity"}),
            Panel(
                title="Parts that stand still",
                queries={"{{part}} {{instance}}": "darkroom_worker_still_seconds > 0"},
                unit="s",
                about="At DARKROOM_WORKER_STALL_SECONDS the worker ends itself.",
            ),
            Panel(
                title="Rows of the U-Net's batches",
                queries={"{{kind}}": _rate("darkroom_unet_rows_total", by="kind")},
                unit="ops",
                about="Padding is what a recorded size costs.",
            ),
            Panel(
                title="Prompts embedded",
                queries={"{{source}}": _rate("darkroom_embeddings_total", by="source")},
                unit="ops",
            ),
            Panel(
                title="Weights on the device",
                queries={"{{model}} {{instance}}": "darkroom_model_bytes"},
                unit="bytes",
            ),
        ),
        "Resources": _per_process("gpu_worker"),
    },
)

BATCH: Final = Dashboard(
    uid="darkroom-batch",
    title="Darkroom: windows and letters",
    rows={
        "Windows": (
            Panel(
                title="Open for",
                queries={"oldest window": "max(darkroom_window_open_seconds)"},
                unit="s",
                limit=1800,
            ),
            Panel(
                title="From a window's opening to its end",
                queries={
                    "p50": _quantile(0.5, "darkroom_window_seconds"),
                    "p99": _quantile(0.99, "darkroom_window_seconds"),
                },
                unit="s",
                limit=1800,
            ),
            Panel(
                title="Jobs per window, and put off",
                queries={
                    "jobs, mean": (
                        "sum(increase(darkroom_window_jobs_sum[2h]))"
                        " / sum(increase(darkroom_window_jobs_count[2h]))"
                    ),
                    "put off in 2 h": "sum(increase(darkroom_window_put_off_total[2h]))",
                    "beats made up in 2 h": "sum(increase(darkroom_beats_made_up_total[2h]))",
                },
            ),
        ),
        "Letters": (
            Panel(
                title="Letters, by outcome",
                queries={"{{outcome}}": _rate("darkroom_letters_total", by="outcome")},
                unit="ops",
            ),
            Panel(
                title="From writing to the mail server's yes",
                queries={
                    "p50": _quantile(0.5, "darkroom_letter_seconds"),
                    "p99": _quantile(0.99, "darkroom_letter_seconds"),
                },
                unit="s",
                limit=300,
            ),
            Panel(
                title="Waiting",
                queries={
                    "letters": "max(darkroom_letters_waiting)",
                    "oldest, seconds": "max(darkroom_oldest_letter_seconds)",
                },
            ),
            Panel(
                title="SMTP connections",
                queries={"{{outcome}}": _rate("darkroom_smtp_connections_total", by="outcome")},
                unit="ops",
            ),
        ),
        "Deletion": (
            Panel(
                title="Deleted",
                queries={
                    "generations {{tier}}": _rate("darkroom_generations_expired_total", by="tier"),
                    "pictures": _rate("darkroom_objects_deleted_total"),
                    "leftovers": _rate("darkroom_leftovers_deleted_total"),
                    "accounts": _rate("darkroom_accounts_deleted_total"),
                    "rows of {{table}}": _rate("darkroom_rows_swept_total", by="table"),
                },
                unit="ops",
            ),
            Panel(title="Folders that wait to be emptied", queries={"folders": "max(darkroom_erasures_due)"}),
            Panel(
                title="Declared again on the broker",
                queries={
                    "consumers of {{stream}}": _rate("darkroom_consumer_recreations_total", by="stream"),
                    "streams": _rate("darkroom_stream_recreations_total"),
                },
                unit="ops",
            ),
        ),
        "Resources": _per_process("batcher"),
    },
)

DASHBOARDS: Final = (SERVICE, API, WORKERS, BATCH)


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(exist_ok=True)
    for one in DASHBOARDS:
        (FOLDER / f"{one.uid}.json").write_text(one.render())


if __name__ == "__main__":
    main()
