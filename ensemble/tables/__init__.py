"""What the commands print."""

from ensemble.tables.audit import show_audit
from ensemble.tables.blend import blend_verdict, show_blend, show_details
from ensemble.tables.cascade import show_cascade
from ensemble.tables.compare import show_comparison, verdict
from ensemble.tables.doctor import show_doctor
from ensemble.tables.members import show_held_out, show_members
from ensemble.tables.runs import show_runs, show_submissions
from ensemble.tables.score import show_score
from ensemble.tables.scout import show_scout
from ensemble.tables.slices import show_slices
from ensemble.tables.unknown import show_unknown
from ensemble.tables.views import show_view_search

__all__ = [
    "blend_verdict",
    "show_audit",
    "show_blend",
    "show_cascade",
    "show_comparison",
    "show_details",
    "show_doctor",
    "show_held_out",
    "show_members",
    "show_runs",
    "show_score",
    "show_scout",
    "show_slices",
    "show_submissions",
    "show_unknown",
    "show_view_search",
    "verdict",
]
