"""Windows, letters and deletion: what batchers do."""

from typing import Final

from infra.observability.dashboards.panels import per_process, quantile, rate
from infra.observability.grafana import Dashboard, Panel

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
                    "p50": quantile(0.5, "darkroom_window_seconds"),
                    "p99": quantile(0.99, "darkroom_window_seconds"),
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
                queries={"{{outcome}}": rate("darkroom_letters_total", by="outcome")},
                unit="ops",
            ),
            Panel(
                title="From writing to the mail server's yes",
                queries={
                    "p50": quantile(0.5, "darkroom_letter_seconds"),
                    "p99": quantile(0.99, "darkroom_letter_seconds"),
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
                queries={"{{outcome}}": rate("darkroom_smtp_connections_total", by="outcome")},
                unit="ops",
            ),
        ),
        "Deletion": (
            Panel(
                title="Deleted",
                queries={
                    "generations {{tier}}": rate("darkroom_generations_expired_total", by="tier"),
                    "pictures": rate("darkroom_objects_deleted_total"),
                    "leftovers": rate("darkroom_leftovers_deleted_total"),
                    "accounts": rate("darkroom_accounts_deleted_total"),
                    "rows of {{table}}": rate("darkroom_rows_swept_total", by="table"),
                },
                unit="ops",
            ),
            Panel(title="Folders that wait to be emptied", queries={"folders": "max(darkroom_erasures_due)"}),
            Panel(
                title="Sweeps that the database did not answer",
                queries={"{{table}}": rate("darkroom_sweeps_postponed_total", by="table")},
                unit="ops",
            ),
            Panel(
                title="Declared again on the broker",
                queries={
                    "consumers of {{stream}}": rate("darkroom_consumer_recreations_total", by="stream"),
                    "streams": rate("darkroom_stream_recreations_total"),
                },
                unit="ops",
            ),
        ),
        "Resources": per_process("batcher"),
    },
)
