"""The plots of a report: what each says and shows (one file a plot), and how matplotlib draws it (`canvas`)."""
