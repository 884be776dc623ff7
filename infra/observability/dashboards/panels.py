"""What several dashboards show or ask for alike."""

from collections.abc import Sequence

from infra.observability.grafana import Panel


def quantile(share: float, metric: str, *, by: str = "", where: str = "") -> str:
    """A quantile of a histogram's last minutes, for each value of the labels in ``by``."""
    labels = "le" if not by else f"le, {by}"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{where}[$__rate_interval])))"


def rate(metric: str, *, by: str = "", where: str = "") -> str:
    """What a counter gains in a second, for each value of the labels in ``by``."""
    grouped = f"sum by ({by}) " if by else "sum"
    return f"{grouped}(rate({metric}{where}[$__rate_interval]))"


def per_process(job: str) -> Sequence[Panel]:
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
                "{{instance}}": quantile(0.99, "darkroom_event_loop_lag_seconds", by="instance", where=where)
            },
            unit="s",
            limit=0.25,
            about="How late the process comes to what is due: above 0.1 s it does too much.",
        ),
    )
