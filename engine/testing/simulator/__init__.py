"""A simulated chat-completions endpoint: one pure object with two fronts. See docs/design/simulator.md.

It imports nothing from the rest of the engine (a test holds that): it counts tokens, makes answers and knows the wire
its own way, so that an error of the engine cannot hide by being shared. The HTTP front is in `.server`.
"""

from .answers import first_words, record_text, stable_label, stable_number, stable_output
from .behaviour import AGNEWS_COMPACT, CHANGES, HOLDS, BatchBehaviour, Behaviour
from .command import SimulatorConfig, build_endpoint
from .endpoint import Plan, SimulatedEndpoint
from .ledger import Ledger
from .rates import ALL_FAULTS, FaultRates, Rate, between, cliff, logistic
from .transport import InProcessTransport, SimulatedReply

__all__ = [
    "AGNEWS_COMPACT",
    "ALL_FAULTS",
    "CHANGES",
    "HOLDS",
    "BatchBehaviour",
    "Behaviour",
    "FaultRates",
    "InProcessTransport",
    "Ledger",
    "Plan",
    "Rate",
    "SimulatedEndpoint",
    "SimulatedReply",
    "SimulatorConfig",
    "between",
    "build_endpoint",
    "cliff",
    "first_words",
    "logistic",
    "record_text",
    "stable_label",
    "stable_number",
    "stable_output",
]
