"""The built-in model behind LitServe's dynamic batching; started by `bench/serving.py`.

As its documentation has it for pictures: ``max_batch_size`` and ``batch_timeout`` of the
`LitAPI`, a list in ``predict``, a `Response` with the PNG from ``encode_response``. One worker
process, since each would hold the model and the cores are shared.
"""

import argparse
from typing import Any

import litserve
from starlette.responses import Response
from static import StaticBatches


class Shapes(litserve.LitAPI):
    def __init__(self, dtype: str, threads: int, **batching: Any) -> None:
        super().__init__(**batching)
        self._how = (dtype, threads)

    def setup(self, device: str) -> None:
        self._batches = StaticBatches(*self._how)

    def decode_request(self, request: dict[str, Any]) -> dict[str, Any]:
        return request

    def predict(self, wanted: list[dict[str, Any]]) -> list[bytes]:
        return self._batches.draw(wanted)

    def encode_response(self, image: bytes) -> Response:
        return Response(image, media_type="image/png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--wait-seconds", type=float, required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    api = Shapes(
        options.dtype,
        options.threads,
        max_batch_size=options.batch,
        batch_timeout=options.wait_seconds,
        api_path="/draw",
    )
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=False)
    server.run(host="127.0.0.1", port=options.port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
