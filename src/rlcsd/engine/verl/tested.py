"""The versions of verl that this engine was tested with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from packaging.version import Version

from ...errors import MissingError

TESTED = ("0.9.1", "0.9.2")  # from the first, below the second


def check_version() -> None:
    """Raise MissingError unless a tested version of verl is installed."""
    wanted = f"it was tested with verl from {TESTED[0]} to below {TESTED[1]}; pip install 'rlcsd[verl]'"
    try:
        found = version("verl")
    except PackageNotFoundError:
        raise MissingError(f"engine=verl: verl is not installed; {wanted}") from None
    if not Version(TESTED[0]) <= Version(found) < Version(TESTED[1]):
        raise MissingError(f"engine=verl: verl {found} is installed, and {wanted}")
