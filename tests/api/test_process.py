"""``python -m api`` as a supervisor sees it."""

import asyncio
import sys
from pathlib import Path

from core.settings import BrokerSettings, DatabaseSettings, LinkSettings, StorageSettings, TokenSettings

ROOT = Path(__file__).parents[2]


async def test_it_does_not_start_with_a_model_that_is_not_pinned(
    database_settings: DatabaseSettings,
    broker_settings: BrokerSettings,
    storage_settings: StorageSettings,
    link_settings: LinkSettings,
    token_settings: TokenSettings,
    tmp_path: Path,
) -> None:
    catalogue = tmp_path / "models.toml"
    catalogue.write_text((ROOT / "core" / "catalogue.toml").read_text())
    assert broker_settings.nats_user
    assert broker_settings.nats_password
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "api",
        cwd=ROOT,
        env={
            "DARKROOM_DATABASE_URL": database_settings.database_url.get_secret_value(),
            "DARKROOM_NATS_URL": broker_settings.nats_url,
            "DARKROOM_NATS_USER": broker_settings.nats_user,
            "DARKROOM_NATS_PASSWORD": broker_settings.nats_password.get_secret_value(),
            "DARKROOM_STORAGE_URL": storage_settings.storage_url,
            "DARKROOM_DOWNLOAD_SECRET": link_settings.download_secret.get_secret_value(),
            "DARKROOM_JWT_SECRET": token_settings.jwt_secret.get_secret_value(),
            "DARKROOM_PASSWORD_PEPPER": token_settings.password_pepper.get_secret_value(),
            "DARKROOM_CATALOGUE": str(catalogue),
            "DARKROOM_MODELS": '["darkroom-demo", "sd-turbo"]',
        },
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    told = stderr.decode()
    assert "api: not pinned: sd-turbo." in told
    assert "`python -m gpu_worker.pin sd-turbo`" in told
    assert "DARKROOM_MODELS='[\"darkroom-demo\"]'" in told
    assert "Traceback" not in told
