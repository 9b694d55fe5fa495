"""`ens blend`: combine the members' out-of-fold logits, score the combination honestly. Never imports torch."""

from ensemble.blend.compare import compare
from ensemble.blend.comparison import Comparison
from ensemble.blend.external.external_files import ExternalFiles
from ensemble.blend.fit import apply_files, blend_files, blend_run
from ensemble.blend.members import MemberRow, members_table
from ensemble.blend.oof import EXTERNAL_VIEW
from ensemble.blend.options import BlendOptions
from ensemble.blend.result import BlendResult, read_result
from ensemble.blend.saved import Blend, check_sources, list_blends, load_blend

__all__ = [
    "EXTERNAL_VIEW",
    "Blend",
    "BlendOptions",
    "BlendResult",
    "Comparison",
    "ExternalFiles",
    "MemberRow",
    "apply_files",
    "blend_files",
    "blend_run",
    "check_sources",
    "compare",
    "list_blends",
    "load_blend",
    "members_table",
    "read_result",
]
