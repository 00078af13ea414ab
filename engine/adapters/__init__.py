"""One outside thing each. Foreign exceptions are translated here, where the library is imported."""
