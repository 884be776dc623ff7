import pytest

from core.errors import ConfigurationError
from core.settings import BrokerSettings, DatabaseSettings, StorageSettings, TokenSettings, read


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(ConfigurationError, match="DARKROOM_DATABASE_URL"):
        read(DatabaseSettings)


def test_a_variable_outside_its_range_is_named_and_secrets_are_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DARKROOM_JWT_SECRET", "too-short")
    monkeypatch.setenv("DARKROOM_PASSWORD_PEPPER", "p" * 20)
    monkeypatch.setenv("DARKROOM_BCRYPT_ROUNDS", "99")
    with pytest.raises(ConfigurationError) as refused:
        read(TokenSettings)
    assert "DARKROOM_JWT_SECRET" in str(refused.value)
    assert "DARKROOM_BCRYPT_ROUNDS" in str(refused.value)
    assert "too-short" not in str(refused.value)


def test_a_group_reads_only_its_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_NATS_URL", "nats://elsewhere:4222")
    assert read(BrokerSettings).nats_url == "nats://elsewhere:4222"


def test_a_table_that_is_not_json_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_STORAGE_URL", "s3://pictures")
    monkeypatch.setenv("DARKROOM_STORAGE_OPTIONS", "secret=x")
    with pytest.raises(ConfigurationError, match=r'field "storage_options".*JSON') as refused:
        read(StorageSettings)
    assert "secret=x" not in str(refused.value)
