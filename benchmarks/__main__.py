"""All benchmarks, as one table and as JSON: `python -m benchmarks`, or some of them: `--only sender memory`.

The whole takes under five minutes. Figures of one run on one machine can be compared with each other, those of two
machines hardly.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import accuracy, boxed, contexts, memory, peers, recording, sender, startup, streamed, virtual, whole
from benchmarks.rows import Row, machine, to_markdown


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", nargs="+", default=[], metavar="SECTION", help="run these sections only")
    options.add_argument("--json", type=Path, default=Path("runs/bench.json"), help="write the figures there")
    options.add_argument("--soak", type=int, default=20_000, metavar="CALLS", help="calls of the soak (1000000 say)")
    options.add_argument("--calls", type=int, default=30_000, help="of each simulation (1000000 say)")
    options.add_argument("--rounds", type=int, default=2, help="of which the median is taken")
    given = options.parse_args()
    sections: dict[str, Callable[[], list[Row]]] = {
        "start": startup.section,
        "sender": lambda: sender.section(given.rounds + 1),
        "whole": lambda: whole.section(given.rounds),
        "accuracy": accuracy.section,
        "streamed": streamed.section,
        "boxed": lambda: boxed.section(given.rounds + 1),
        "contexts": contexts.section,
        "agents": memory.agents,
        "soak": lambda: memory.soak(given.soak),
        "record": recording.section,
        "virtual": lambda: virtual.section(given.calls),
        "peers": peers.section,
    }
    unknown = set(given.only) - set(sections)
    if unknown:
        options.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(sections)}")
    where, rows = machine(), list[Row]()
    for name in given.only or sections:
        start = time.perf_counter()
        rows += sections[name]()
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    print(f"{where['cores']} cores of {where['processor']}, Python {where['python']}, load {where['load']:.1f}\n")
    print(to_markdown(rows))
    given.json.parent.mkdir(parents=True, exist_ok=True)
    figures = [row._asdict() | {"met": row.met} for row in rows]
    given.json.write_text(json.dumps({"machine": where, "rows": figures}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
