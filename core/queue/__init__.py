"""The broker: NATS JetStream. No other package imports its client."""

from core.queue.client import Queue
from core.queue.consumer import Consumer, Delivery
from core.queue.topology import Lane

__all__ = ["Consumer", "Delivery", "Lane", "Queue"]
