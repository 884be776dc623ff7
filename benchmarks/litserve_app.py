"""``python -m benchmarks.litserve_app``: the stock pipeline behind LitServe, which batches whole requests."""

import argparse
import io
from collections.abc import Sequence
from typing import Any

from fastapi import Response
from litserve import LitAPI, LitServer

from benchmarks.stock import StockPipeline
from core.messages import Parameters


class StockApi(LitAPI):  # type: ignore[misc] # LitServe is not typed
    """Takes parameters as JSON, answers with a PNG file."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - the pipeline chooses as the worker does
        """Load the model, in the process that will use it, and make one picture."""
        self._pipeline = StockPipeline()

    def decode_request(self, request: dict[str, Any]) -> Parameters:
        """Read one order."""
        return Parameters.model_validate(request)

    def predict(self, asked: Sequence[Parameters] | Parameters) -> list[bytes] | bytes:
        """The files of a batch, or of one order where the server does not batch."""
        if isinstance(asked, Parameters):
            return self._files([asked])[0]
        return self._files(asked)

    def encode_response(self, output: bytes) -> Response:
        """Answer one order."""
        return Response(output, media_type="image/png")

    def _files(self, asked: Sequence[Parameters]) -> list[bytes]:
        files = []
        for picture in self._pipeline.make(asked):
            file = io.BytesIO()
            picture.save(file, "PNG")
            files.append(file.getvalue())
        return files


def main() -> None:
    """Serve on the loopback interface until SIGINT."""
    parser = argparse.ArgumentParser(prog="benchmarks.litserve_app", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True, help="requests in one call at the most")
    parser.add_argument("--timeout", type=float, required=True, help="seconds to wait for a batch to fill")
    options = parser.parse_args()
    api = StockApi(max_batch_size=options.batch, batch_timeout=options.timeout)
    server = LitServer(api, accelerator="cpu", timeout=False)
    server.run(
        host="127.0.0.1",
        port=options.port,
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
    )


if __name__ == "__main__":
    main()
