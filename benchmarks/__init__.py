"""Programs that measure. Each prints its settings, seed, versions, repeats and spread, and writes JSON."""
