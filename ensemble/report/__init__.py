"""`ens report`: one self-contained HTML page from a run directory. Never loads torch by itself."""

from ensemble.report.page import write_report
from ensemble.report.run import RunResults, read_run

__all__ = ["RunResults", "read_run", "write_report"]
