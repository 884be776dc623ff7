"""``python -m infra.nats FOLDER``: a password for every user of the broker, and the hashes for the broker.

Those that are there stay; remove one to have it made up anew. See docs/broker.md for where they go.
"""

import argparse
import sys
from pathlib import Path

from infra.nats.users import write_users


def main() -> int:
    """Write them."""
    parser = argparse.ArgumentParser(prog="python -m infra.nats", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to, outside of the repository")
    folder: Path = parser.parse_args().folder
    write_users(folder)
    sys.stdout.write(f"{folder / 'users.conf'} is the broker's, {folder / 'passwords'}/ the processes'.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
