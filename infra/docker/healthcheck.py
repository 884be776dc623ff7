"""``healthcheck.py PORT PATH``: ends with status 0 when this container answers there with 200."""

import sys
import urllib.request

port, path = sys.argv[1:]
try:
    urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).close()
except OSError as error:
    sys.exit(f"{path}: {error}")
