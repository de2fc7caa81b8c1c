"""The README's table of speed, made of what `make bench` found: each row beside what is wanted of it.

python -m tests.bench.readme [FOLDER] writes between the README's markers; parts that did not run are left out.
"""

import json
import sys
from pathlib import Path

from tests.bench.measure import Row, table

_README = Path(__file__).parents[2] / "README.md"
_BEGIN, _END = "<!-- what make bench found -->", "<!-- end of what make bench found -->"
_PARTS = ("delivery", "drained", "queued", "drain", "served", "library", "decide", "store", "memory", "recovery")
_FIELDS = ("what", "unit", "ours", "against", "limit", "target", "higher_is_better", "note")


def main(folder: Path) -> None:
    """Write the table."""
    parts = [json.loads(path.read_text()) for name in _PARTS if (path := folder / f"{name}.json").exists()]
    rows = [Row(**{name: row[name] for name in _FIELDS}) for part in parts for row in part["rows"]]
    before, _, rest = _README.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    _README.write_text(f"{before}{_BEGIN}\n{table(rows)}\n{_END}{after}")
    sys.stdout.write(f"README.md: {len(rows)} rows of {len(parts)} parts\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if sys.argv[1:] else "bench"))
