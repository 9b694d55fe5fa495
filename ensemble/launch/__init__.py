"""Where jobs run. A launcher takes jobs, the work of each, and two listeners, and returns when all have ended."""
