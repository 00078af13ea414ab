"""annotation-engine."""
