"""Public fakes: an event loop on virtual time, a scripted transport, and a simulated endpoint.

Nothing is imported here, so that `engine.testing.simulator` can be used without the rest.
"""
