"""A simulated chat-completions endpoint: one pure object with two fronts. See docs/design/simulator.md.

It imports nothing from the rest of the engine (a test holds that): it counts tokens, makes answers and knows the wire
its own way, so that an error of the engine cannot hide by being shared. The HTTP front is in `.server`.
"""

from .answers import first_words, gold_label, record_text, stable_label, stable_number, stable_output
from .behaviour import BatchBehaviour, Behaviour, Drift
from .command import SimulatorConfig, build_endpoint
from .endpoint import Plan, SimulatedEndpoint
from .ledger import Ledger, Prices
from .made_up import CHANGES, HOLDS
from .measured import AGNEWS_COMPACT
from .model import Moment
from .profiles import PROFILES, Origin, Profile, named_profile
from .rates import ALL_FAULTS, FaultRates, Rate, between, cliff, logistic
from .transport import InProcessTransport, SimulatedReply

__all__ = [
    "AGNEWS_COMPACT",
    "ALL_FAULTS",
    "CHANGES",
    "HOLDS",
    "PROFILES",
    "BatchBehaviour",
    "Behaviour",
    "Drift",
    "FaultRates",
    "InProcessTransport",
    "Ledger",
    "Moment",
    "Origin",
    "Plan",
    "Prices",
    "Profile",
    "Rate",
    "SimulatedEndpoint",
    "SimulatedReply",
    "SimulatorConfig",
    "between",
    "build_endpoint",
    "cliff",
    "first_words",
    "gold_label",
    "logistic",
    "named_profile",
    "record_text",
    "stable_label",
    "stable_number",
    "stable_output",
]
