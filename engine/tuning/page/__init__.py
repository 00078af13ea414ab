"""The page of a plan: the plot of savings, and the file beside `plan.json` (`html`)."""
