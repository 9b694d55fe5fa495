"""`ens blend`: combine the members' out-of-fold logits, score the combination honestly. Never imports torch."""

from ensemble.blend.fit import BlendResult, MemberRow, blend_run, members_table
from ensemble.blend.saved import Blend, check_sources, list_blends, load_blend

__all__ = [
    "Blend",
    "BlendResult",
    "MemberRow",
    "blend_run",
    "check_sources",
    "list_blends",
    "load_blend",
    "members_table",
]
