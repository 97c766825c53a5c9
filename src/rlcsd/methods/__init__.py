"""The methods by name, and what a method of one's own derives from (`method=path/to/file.py:ClassName`)."""

from __future__ import annotations

from ..errors import InputError, suggestion
from ..plugins import load_attribute, load_experiments
from ..records import StudentLogProbs, TokenBatch
from .base import ContrastConfig, CreditMethod, HintedConfig, Method, MethodConfig, Sums
from .cepo import CEPO
from .contrast import ContrastiveMethod
from .grpo import CISPO, DAPO, GRPO, GSPO, RLOO, DrGRPO
from .objective import OBJECTIVES, ObjectiveConfig
from .opd import OPD, OPDContrast
from .opsa import OPSA
from .opsd import OPSD, OPSDContrast
from .rlcsd import RLCSD
from .rlsd import RLSD, RLSDContrast
from .sdar import SDAR
from .sdpo import SDPO
from .srpo import SRPO

_CLASSES: tuple[type[Method], ...] = (
    *(GRPO, OPSD, SDPO, SRPO, RLSD, RLCSD, OPSDContrast, RLSDContrast),  # the paper's table
    *(OPD, OPDContrast),  # to which its argument points
    *(DAPO, DrGRPO, GSPO, CISPO, RLOO),  # further baselines without a teacher
    *(CEPO, SDAR, OPSA),  # relatives from other papers
)
METHODS: dict[str, type[Method]] = {cls.name: cls for cls in _CLASSES}
_registered: dict[str, type[Method]] = {}

__all__ = [
    "METHODS",
    "OBJECTIVES",
    "ContrastConfig",
    "ContrastiveMethod",
    "CreditMethod",
    "HintedConfig",
    "Method",
    "MethodConfig",
    "ObjectiveConfig",
    "StudentLogProbs",
    "Sums",
    "TokenBatch",
    "method_class",
    "register",
]


def register(cls: type[Method]) -> None:
    """Make a method known by its `name`, beside those of `METHODS`."""
    _registered[cls.name] = cls


def method_class(name: str) -> type[Method]:
    """The class that a config's `method.name` names.

    Raises:
        InputError: no such method, file or class, or a class that is not a `Method`.
    """
    if name in METHODS:
        return METHODS[name]
    if ".py:" in name:
        attribute = load_attribute("method", name)
        if not (isinstance(attribute, type) and issubclass(attribute, Method)):
            raise InputError(f"method={name}: the file has no such class derived from rlcsd.methods.Method")
        return attribute
    load_experiments()
    if name in _registered:
        return _registered[name]
    hint = suggestion(name, METHODS, f"known: {', '.join(METHODS)}, or path/to/file.py:ClassName")
    raise InputError(f"method={name}: unknown method; {hint}")
