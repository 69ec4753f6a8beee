"""How many rows a second `tokenskip grade` grades: GSM8K's solutions, right and wrong by turns.

python benchmarks/grade_speed.py gsm8k/train.jsonl --rows 5000 [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from tokenskip.commands.files import grade_file


def main() -> None:
    """Print rows per second of CPU time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.source.read_text(encoding="utf-8").splitlines()[: options.rows]]
    with tempfile.TemporaryDirectory() as folder:
        rows, graded = Path(folder) / "rows.jsonl", Path(folder) / "graded.jsonl"
        with rows.open("w", encoding="utf-8") as out:
            for number, line in enumerate(lines):
                solution, gold = line["answer"].rsplit("####", 1)
                value = gold.strip() if number % 2 else f"{gold.strip()}1"
                ending = (f"The final answer is {value}.", f"#### {value}", f"So it is $\\boxed{{{value}}}$.")[
                    number % 3
                ]
                out.write(json.dumps({"id": number, "gold": gold.strip(), "output": f"{solution}{ending}"}) + "\n")
        start = time.process_time()
        counts = grade_file(rows, "gsm8k", graded)
        seconds = time.process_time() - start
    result = {"rows": len(lines), "rows_per_s": round(len(lines) / seconds), **counts}
    print(json.dumps(result) if options.json else f"{result['rows_per_s']:,} rows/s ({result})", file=sys.stdout)


if __name__ == "__main__":
    main()
