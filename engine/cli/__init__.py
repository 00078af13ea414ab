"""The command `annotate`: arguments, progress, exit codes. No decisions."""
