"""The broker: NATS JetStream. No other package imports its client."""

from core.queue.client import Queue
from core.queue.consumer import Consumer, Delivery, signs_of_life
from core.queue.role import Role
from core.queue.topology import Lane
from core.queue.workers import Workers

__all__ = ["Consumer", "Delivery", "Lane", "Queue", "Role", "Workers", "signs_of_life"]
