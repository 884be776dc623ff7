"""What the api is compared with: the same insert and publish, and the same look-up, by hand.

Starlette, asyncpg and nats-py as their documentation uses them, in uvicorn as the api runs in it. Nobody has
to sign in, nothing is limited and the input is believed.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID, uuid4

import asyncpg
import nats
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

_INSERT: Final = """
    INSERT INTO generation (
        id, account_id, tier, delivery, state, prompt, negative_prompt, model, width, height, steps,
        guidance_scale, seed, count, scheduler, format, request_fingerprint, request_id, created_at,
        published_at
    ) VALUES (
        $1, $2, 'PREMIUM', 'DOWNLOAD', 'QUEUED', $3, '', 'darkroom-demo', $4, $5, $6, 4, $7, 1, 'DDIM', 'PNG',
        '-', '-', now(), now()
    ) RETURNING created_at
"""


async def generate(request: Request) -> JSONResponse:
    """Insert a generation and publish its job."""
    asked = await request.json()
    generation_id = uuid4()
    sizes = (asked["width"], asked["height"], asked["steps"])
    created_at = await request.app.state.pool.fetchval(
        _INSERT, generation_id, UUID(asked["account"]), asked["prompt"], *sizes, asked["seed"]
    )
    job = {
        "id": str(generation_id),
        "tier": "PREMIUM",
        "delivery": "DOWNLOAD",
        "accepted_at": created_at.isoformat(),
        "parameters": {
            "prompt": asked["prompt"],
            "negative_prompt": "",
            "model": "darkroom-demo",
            "width": asked["width"],
            "height": asked["height"],
            "steps": asked["steps"],
            "guidance_scale": 4.0,
            "seed": asked["seed"],
            "count": 1,
            "scheduler": "DDIM",
            "format": "PNG",
        },
    }
    await request.app.state.jetstream.publish(f"jobs.premium.{generation_id}", json.dumps(job).encode())
    return JSONResponse({"id": str(generation_id), "state": "QUEUED", "createdAt": created_at.isoformat()})


async def generation(request: Request) -> JSONResponse:
    """Look a generation up."""
    row = await request.app.state.pool.fetchrow(
        "SELECT * FROM generation WHERE id = $1 AND account_id = $2",
        UUID(request.path_params["id"]),
        UUID(request.query_params["account"]),
    )
    return JSONResponse(
        {
            "id": str(row["id"]),
            "state": row["state"],
            "prompt": row["prompt"],
            "width": row["width"],
            "height": row["height"],
            "createdAt": row["created_at"].isoformat(),
        }
    )


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    env = os.environ
    app.state.pool = await asyncpg.create_pool(env["DARKROOM_DATABASE_URL"], min_size=1, max_size=10)
    client = await nats.connect(
        env["DARKROOM_NATS_URL"], user=env["DARKROOM_NATS_USER"], password=env["DARKROOM_NATS_PASSWORD"]
    )
    app.state.jetstream = client.jetstream()
    yield
    await client.close()
    await app.state.pool.close()


def main() -> None:
    """Serve on ``PORT`` of the loopback interface."""
    routes: list[Any] = [
        Route("/generate", generate, methods=["POST"]),
        Route("/generations/{id}", generation),
    ]
    app = Starlette(routes=routes, lifespan=_lifespan)
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_config=None, access_log=False)


if __name__ == "__main__":
    main()
