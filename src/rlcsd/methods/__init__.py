"""The methods by name. A user's own comes as `path/to/file.py:ClassName`."""

from __future__ import annotations

import difflib

from ..errors import InputError
from ..plugins import load_attribute
from ..records import Evidence, Policy
from .base import ContrastConfig, HintedConfig, Method, MethodConfig, Sums
from .contrast import Contrastive
from .grpo import GRPO
from .opd import OPD, OPDContrast
from .opsd import OPSD
from .opsd_ectr import OPSDContrast
from .ppo import CreditMethod
from .rlcsd import RLCSD
from .rlsd import RLSD
from .rlsd_ectr import RLSDContrast
from .sdpo import SDPO
from .srpo import SRPO

# The eight of the paper's table, then two that its argument points to.
_CLASSES: tuple[type[Method], ...] = (GRPO, OPSD, SDPO, SRPO, RLSD, RLCSD, OPSDContrast, RLSDContrast, OPD, OPDContrast)
METHODS: dict[str, type[Method]] = {cls.name: cls for cls in _CLASSES}

__all__ = [
    "METHODS",
    "ContrastConfig",
    "Contrastive",
    "CreditMethod",
    "Evidence",
    "HintedConfig",
    "Method",
    "MethodConfig",
    "Policy",
    "Sums",
    "method_class",
]


def method_class(name: str) -> type[Method]:
    """The class that a config's `method.name` names.

    Raises:
        InputError: no such method, file or class, or a class that is not a `Method`.
    """
    if name in METHODS:
        return METHODS[name]
    if ".py:" not in name:
        close = difflib.get_close_matches(name, METHODS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(METHODS)}, or path/to/file.py:ClassName"
        raise InputError(f"method={name}: unknown method; {hint}")
    attribute = load_attribute("method", name)
    if not (isinstance(attribute, type) and issubclass(attribute, Method)):
        raise InputError(f"method={name}: the file has no such class derived from rlcsd.methods.Method")
    return attribute
