"""What a run took and brought: counters while it runs, the report when it has ended."""
