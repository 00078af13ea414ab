"""Orchestration: puts decisions and adapters together, and owns tasks, streams and cancellation."""
