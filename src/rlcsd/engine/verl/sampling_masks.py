"""Sampling masks of verl's vLLM servers: vLLM returns them, and verl's server passes on other fields of an answer.

A server copies `kv_transfer_params` of vLLM's answer, which nothing here uses, into the extra fields of its own. Tested
with verl 0.9.1.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

_FIELD = "kv_transfer_params"
_KEY = "rlcsd_sampling_mask"


def pass_masks_on(server: Any) -> None:
    """Runs in a server's actor: answers of its vLLM engine carry their sampling masks in a field that verl copies."""
    engine = getattr(server, "engine", None)
    if engine is None:  # a server that is a further node of another one's model
        return
    generate = engine.generate

    async def with_masks(*arguments: Any, **options: Any) -> AsyncIterator[Any]:
        async for answer in generate(*arguments, **options):
            mask = getattr(answer.outputs[0], "sampling_mask", None) if answer.outputs else None
            if mask is not None:
                setattr(answer, _FIELD, {_KEY: mask.token_ids})
            yield answer

    engine.generate = with_masks


def returned_mask(output: Any) -> list[list[int]] | None:
    """The kept ids of each token of a server's answer, None if it has none."""
    found: list[list[int]] | None = (output.extra_fields.get(_FIELD) or {}).get(_KEY)
    return found
