"""The architectures of the named models, so that a plan needs no network."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return table


def known_architecture(path: str) -> Any | None:
    """The transformers config of a model by its name on the hub, or None for one that is not among the named."""
    values = _table().get(path)
    if values is None:
        return None
    from transformers import AutoConfig

    return AutoConfig.for_model(**values)
