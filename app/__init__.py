"""The OpenAI Responses API in front of Qwen: stateful, streamed, self-hosted."""

__version__ = "0.1.0"
