"""The page of a bench: what each plot says and shows (one file a kind), and the file beside `bench.json` (`html`)."""
