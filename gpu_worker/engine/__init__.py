"""Step-level continuous batching: pictures join and leave a running batch between two steps of denoising."""

from gpu_worker.engine.engine import Engine
from gpu_worker.engine.policy import Policy
from gpu_worker.engine.slots import Listener, Picture, pictures_of

__all__ = [
    "Engine",
    "Listener",
    "Picture",
    "Policy",
    "pictures_of",
]
