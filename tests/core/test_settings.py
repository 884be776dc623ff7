import re

import pytest

from core.errors import ConfigurationError
from core.settings import (
    BrokerSettings,
    DatabaseSettings,
    MailSettings,
    PaymentSettings,
    StorageSettings,
    TokenSettings,
    read,
)


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(ConfigurationError, match="DARKROOM_DATABASE_URL: is required"):
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


def test_what_is_wrong_is_said_with_the_reason_and_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_DATABASE_URL", "mysql://user:s3cret@host/name")
    monkeypatch.setenv("DARKROOM_DATABASE_POOL_SIZE", "0")
    monkeypatch.setenv("DARKROOM_DATABASE_TIMEOUT_SECONDS", "soon")
    with pytest.raises(ConfigurationError) as refused:
        read(DatabaseSettings)
    assert str(refused.value).split("settings: ")[1].split("; ") == [
        "DARKROOM_DATABASE_URL: has to be an address such as postgres://user:password@host:5432/name",
        "DARKROOM_DATABASE_POOL_SIZE: must be at least 1",
        "DARKROOM_DATABASE_TIMEOUT_SECONDS: must be a number",
    ]


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
            ["DARKROOM_STRIPE_WEBHOOK_SECRET: is needed", "DARKROOM_OFFERS: are needed"],
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


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"SMTP_USER": "darkroom"}, "DARKROOM_SMTP_PASSWORD: .* needed together"),
        ({"SMTP_PASSWORD": "s3cret"}, "DARKROOM_SMTP_PASSWORD: .* needed together"),
        (
            {"SMTP_USER": "darkroom", "SMTP_PASSWORD": "s3cret", "SMTP_HOST": "relay.example"},
            "DARKROOM_SMTP_PASSWORD: .* unencrypted: set DARKROOM_SMTP_SECURITY",
        ),
        ({"SMTP_SECURITY": "ssl"}, "DARKROOM_SMTP_SECURITY: "),
        ({"SMTP_CONNECTIONS": "0"}, "DARKROOM_SMTP_CONNECTIONS: "),
        ({"MAIL_FROM": "Darkroom"}, "DARKROOM_MAIL_FROM: has to be an address"),
        ({"MAIL_FROM": "a@example.com\nBcc: b@example.com"}, "DARKROOM_MAIL_FROM: has to be an address"),
    ],
)
def test_mail_settings_that_cannot_work_or_tell_a_secret_are_named(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], reason: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"DARKROOM_{name}", value)
    with pytest.raises(ConfigurationError, match=reason) as refused:
        read(MailSettings)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("how", [{"SMTP_SECURITY": "starttls", "SMTP_HOST": "relay.example"}, {}])
def test_a_password_goes_encrypted_or_stays_on_this_machine(
    monkeypatch: pytest.MonkeyPatch, how: dict[str, str]
) -> None:
    for name, value in {"SMTP_USER": "darkroom", "SMTP_PASSWORD": "s3cret", **how}.items():
        monkeypatch.setenv(f"DARKROOM_{name}", value)
    password = read(MailSettings).smtp_password
    assert password is not None
    assert password.get_secret_value() == "s3cret"
