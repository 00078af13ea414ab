"""Accuracy of outputs against the sample's gold labels, with 95 % intervals: score.py OUT.jsonl [OUT.jsonl ...]"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

GOLD = Path(__file__).parent / "gold.jsonl"


def read(path: Path) -> dict[str, dict[str, str] | None]:
    """Outputs by id; None for a failed record."""
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return {row["id"]: row["output"] for row in rows}


def interval(right: int, total: int) -> str:
    """Wilson's interval for a share, at 95 %."""
    z, p = 1.96, right / total
    middle, half = p + z * z / (2 * total), z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return f"{p:.2f} ({(middle - half) / scale:.2f} to {(middle + half) / scale:.2f})"


def main() -> None:
    gold = read(GOLD)
    print(f"{'accuracy against gold':<34}{'n':>4}  {'topic':<22}{'mood':<22}")
    for name in sys.argv[1:]:
        answered = {id_: output for id_, output in read(Path(name)).items() if output}
        cells = [
            interval(sum(output[field] == gold[id_][field] for id_, output in answered.items()), len(answered))
            if answered
            else "-"
            for field in ("topic", "mood")
        ]
        print(f"{Path(name).stem:<34}{len(answered):>4}  {cells[0]:<22}{cells[1]:<22}")


if __name__ == "__main__":
    main()
