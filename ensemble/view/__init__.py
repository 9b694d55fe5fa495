"""`ens view`: a run as it trains, on a page that only this machine can open.

It reads the run's files and writes nothing, so it shows a run that any engine trains, on whatever machines. Python's
own server is enough for the few who look at it: no extra is needed, and torch is never loaded.
"""

from ensemble.view.server import view as view
