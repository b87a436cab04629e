"""The simulated Qwen; `app.discovery` looks here for the provider."""

from app.providers.demo.provider import PROVIDER

__all__ = ["PROVIDER"]
