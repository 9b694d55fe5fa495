"""ens from Python: what `import ensemble as ens` offers, over the same functions as the commands."""
