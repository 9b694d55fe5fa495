"""What predictors share, whether they are a run's networks or an exported file. Never imports torch."""
