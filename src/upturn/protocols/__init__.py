"""Every interface: the base class of each kind of component, and the protocols of what components are given.

A component is a dataclass (hyperparameters in the fields, data in the call) that inherits the base class of its kind.
The base class is required: it declares, with a default, every attribute that other code reads.
"""

from upturn.protocols.adapter import Adapter
from upturn.protocols.capabilities import ClosedForm, FromFiles, Pretrained, Standardises, ValueHead
from upturn.protocols.caption import Caption
from upturn.protocols.component import Component
from upturn.protocols.component_tools import INITIAL_POLICY, Tools
from upturn.protocols.curator import VERIFIED, Curator, SelectionLaw
from upturn.protocols.features import Features
from upturn.protocols.metric import Better, Evidence, Metric
from upturn.protocols.mixing import MixingPolicy
from upturn.protocols.model import Policy, Trainable
from upturn.protocols.objective import Objective
from upturn.protocols.optimizer_factory import OptimizerFactory, Schedule
from upturn.protocols.sampler import Sampler, SamplingSettings
from upturn.protocols.scorer import Scorer
from upturn.protocols.source import Source

__all__ = [
    "INITIAL_POLICY",
    "VERIFIED",
    "Adapter",
    "Better",
    "Caption",
    "ClosedForm",
    "Component",
    "Curator",
    "Evidence",
    "Features",
    "FromFiles",
    "Metric",
    "MixingPolicy",
    "Objective",
    "OptimizerFactory",
    "Policy",
    "Pretrained",
    "Sampler",
    "SamplingSettings",
    "Schedule",
    "Scorer",
    "SelectionLaw",
    "Source",
    "Standardises",
    "Tools",
    "Trainable",
    "ValueHead",
]
