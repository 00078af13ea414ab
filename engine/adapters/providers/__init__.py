"""LLM APIs: the translation of requests and replies, without IO, and the classification of errors."""
