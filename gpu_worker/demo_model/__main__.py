"""``python -m gpu_worker.demo_model FOLDER`` makes the model as ``FOLDER``."""

import argparse
from pathlib import Path

from gpu_worker.demo_model.build import build


def main() -> None:
    """Make the model where the command line says."""
    parser = argparse.ArgumentParser(prog="gpu_worker.demo_model", description="Make the small demo model.")
    parser.add_argument("folder", type=Path, help="the folder to make; left as it is when it exists")
    build(parser.parse_args().folder)


if __name__ == "__main__":
    main()
