"""The broker as it runs in production and, by the same ``nats.conf``, in ``make up`` and the tests."""
