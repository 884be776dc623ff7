"""The api: GraphQL, HTTP, websockets, and what its processes take."""

from typing import Final

from infra.observability.dashboards.panels import per_process, quantile, rate
from infra.observability.grafana import Dashboard, Panel

API: Final = Dashboard(
    uid="darkroom-api",
    title="Darkroom: api",
    rows={
        "GraphQL: rate, errors, duration": (
            Panel(
                title="Operations",
                queries={"{{operation}}": rate("darkroom_graphql_seconds_count", by="operation")},
                unit="ops",
            ),
            Panel(
                title="Errors, by code",
                queries={
                    "{{code}}": rate("darkroom_graphql_errors_total", by="code"),
                    "timeout {{operation}}": rate("darkroom_graphql_timeouts_total", by="operation"),
                },
                unit="ops",
            ),
            Panel(
                title="Seconds per operation, p99",
                queries={"{{operation}}": quantile(0.99, "darkroom_graphql_seconds", by="operation")},
                unit="s",
            ),
            Panel(
                title="Refused by a limit",
                queries={"{{action}}": rate("darkroom_rate_limited_total", by="action")},
                unit="ops",
            ),
            Panel(
                title="Documents too large, by limit",
                queries={"{{limit}}": rate("darkroom_documents_refused_total", by="limit")},
                unit="ops",
            ),
            Panel(title="Cost of operations, p99", queries={"cost": quantile(0.99, "darkroom_graphql_cost")}),
        ),
        "HTTP and websockets": (
            Panel(
                title="Requests",
                queries={"{{route}} {{status}}": rate("darkroom_http_seconds_count", by="route, status")},
                unit="ops",
            ),
            Panel(
                title="Seconds per request, p99",
                queries={"{{route}}": quantile(0.99, "darkroom_http_seconds", by="route")},
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
                    "{{code}}": rate("darkroom_websockets_closed_total", by="code"),
                    "slow readers": rate("darkroom_slow_readers_total"),
                },
                unit="ops",
            ),
            Panel(
                title="Payments",
                queries={
                    "checkout {{outcome}}": rate("darkroom_checkouts_total", by="outcome"),
                    "webhook {{outcome}}": rate("darkroom_webhooks_total", by="outcome"),
                },
                unit="ops",
            ),
        ),
        "Resources": (
            *per_process("api"),
            Panel(
                title="Database connections",
                queries={"{{state}} {{instance}}": 'darkroom_database_connections{job="api"}'},
                about="Idle at 0 while all are open: the pool is exhausted.",
            ),
            Panel(
                title="Wait for a connection, p99",
                queries={
                    "{{instance}}": quantile(
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
