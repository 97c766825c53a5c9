"""Research on the methods: what our own studies need beyond the product. The core never imports this package.

`rlcsd.plugins.load_experiments` imports it by name when a config names a method or task that the core does not know;
importing it registers what it brings.
"""

from ..methods import register
from .rlcsd_extended import RLCSDExtended

register(RLCSDExtended)
