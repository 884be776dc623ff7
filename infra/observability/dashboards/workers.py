"""The workers: how many there are, and what their engines do."""

from typing import Final

from infra.observability.dashboards.panels import per_process, quantile, rate
from infra.observability.grafana import Dashboard, Panel

WORKERS: Final = Dashboard(
    uid="darkroom-workers",
    title="Darkroom: workers",
    rows={
        "Fleet": (
            Panel(title="Workers, by tier", queries={"{{tier}}": "darkroom:workers:max"}),
            Panel(title="Slots", queries={"{{state}}": "darkroom:worker_slots:max"}),
            Panel(
                title="Pictures a second",
                queries={"{{model}}": rate("darkroom_images_total", by="model")},
                unit="ops",
            ),
        ),
        "Jobs": (
            Panel(
                title="Premium: from acceptance to a worker",
                queries={
                    "p50": quantile(0.5, "darkroom_queue_seconds", where='{tier="PREMIUM"}'),
                    "p99": quantile(0.99, "darkroom_queue_seconds", where='{tier="PREMIUM"}'),
                },
                unit="s",
            ),
            Panel(
                title="From acceptance to the first step, p99",
                queries={"{{tier}}": quantile(0.99, "darkroom_first_step_seconds", by="tier")},
                unit="s",
            ),
            Panel(
                title="Pictures under way",
                queries={"{{tier}} {{instance}}": "darkroom_slots"},
                about="Paused ones included.",
            ),
            Panel(
                title="Pictures not stored yet",
                queries={"{{tier}} {{instance}}": "darkroom_unstored_pictures"},
                about="At four for each slot a worker takes no more jobs of the tier.",
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
                    "p50": quantile(0.5, "darkroom_tick_seconds"),
                    "p99": quantile(0.99, "darkroom_tick_seconds"),
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
                queries={"{{kind}}": rate("darkroom_unet_rows_total", by="kind")},
                unit="ops",
                about="Padding is what a recorded size costs.",
            ),
            Panel(
                title="Prompts embedded",
                queries={"{{source}}": rate("darkroom_embeddings_total", by="source")},
                unit="ops",
            ),
            Panel(
                title="Weights on the device",
                queries={"{{model}} {{instance}}": "darkroom_model_bytes"},
                unit="bytes",
            ),
        ),
        "Resources": per_process("gpu_worker"),
    },
)
