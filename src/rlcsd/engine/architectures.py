"""transformers configs of well-known models, so that planning a run needs no network access."""

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
    """The transformers config of a model by its hub name; None if `architectures.yaml` does not have it."""
    values = _table().get(path)
    if values is None:
        return None
    from transformers import AutoConfig

    return AutoConfig.for_model(**values)
