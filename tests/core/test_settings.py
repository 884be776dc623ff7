import re

import pytest

from core.errors import ConfigurationError
from core.settings import (
    BrokerSettings,
    DatabaseSettings,
    PaymentSettings,
    StorageSettings,
    TokenSettings,
    read,
)


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


OFFER = '{"id": "month", "days": 30, "price": 900, "currency": "eur"}'


def test_premium_time_can_be_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_STRIPE_SECRET_KEY", "sk_test_1")
    monkeypatch.setenv("DARKROOM_STRIPE_WEBHOOK_SECRET", "whsec_1")
    monkeypatch.setenv("DARKROOM_OFFERS", f"[{OFFER}]")
    [offer] = read(PaymentSettings).offers
    assert (offer.id, offer.days, offer.price, offer.currency) == ("month", 30, 900, "eur")


@pytest.mark.parametrize(
    ("variables", "reasons"),
    [
        (
            {"STRIPE_SECRET_KEY": "sk_test_1"},
            ["DARKROOM_STRIPE_WEBHOOK_SECRET: .* is needed", "DARKROOM_OFFERS: .* are needed"],
        ),
        ({"OFFERS": f"[{OFFER}, {OFFER}]"}, ["DARKROOM_OFFERS: .* different ids"]),
        ({"OFFERS": f"[{OFFER.replace('900', '0')}]"}, ["DARKROOM_OFFERS_0_PRICE: "]),
        ({"OFFERS": f"[{OFFER.replace('eur', 'Euro')}]"}, ["DARKROOM_OFFERS_0_CURRENCY: "]),
        ({"OFFERS": f"[{OFFER.replace('30', '4000')}]"}, ["DARKROOM_OFFERS_0_DAYS: "]),
        ({"OFFERS": OFFER.replace("{", '[{"gift": true, ') + "]"}, ["DARKROOM_OFFERS_0_GIFT: "]),
    ],
)
def test_what_cannot_be_sold_is_named(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], reasons: list[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"DARKROOM_{name}", value)
    with pytest.raises(ConfigurationError) as refused:
        read(PaymentSettings)
    for reason in reasons:
        assert re.search(reason, str(refused.value))
    assert "sk_test_1" not in str(refused.value)
