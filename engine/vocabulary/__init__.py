"""The nouns that every other room speaks in: values, tasks, configuration, events, errors and ports.

Nothing here decides, waits, or touches the outside.
"""
