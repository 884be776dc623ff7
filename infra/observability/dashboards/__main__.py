"""``python -m infra.observability.dashboards``: writes Grafana's dashboards to ``dashboards.d/``."""

from infra.observability.dashboards import DASHBOARDS, FOLDER


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(exist_ok=True)
    for one in DASHBOARDS:
        (FOLDER / f"{one.uid}.json").write_text(one.render())


if __name__ == "__main__":
    main()
