"""Print how Headrace does on the public ONNX node cases: python -m tests.conformance.score [-v] [PATTERN]."""

from __future__ import annotations

import argparse
import re
from collections import Counter

from tests.conformance.cases import REFUSED, Outcome, node_cases, run_case


def main() -> int:
    """Exit status 1 when a case gives a wrong answer or crashes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pattern", nargs="?", default="", help="regular expression on the names of cases")
    parser.add_argument("-v", "--verbose", action="store_true", help="also list the refusals")
    parser.add_argument("--engine", default="interpreter", choices=("interpreter", "native"))
    parser.add_argument("--update", action="store_true", help="rewrite the list of refused cases")
    args = parser.parse_args()
    outcomes: dict[str, Outcome] = {}
    for name, case in node_cases().items():
        if re.search(args.pattern, name):
            outcomes[name] = outcome = run_case(case, args.engine)
            if outcome.kind in ("wrong", "crash") or (args.verbose and outcome.kind == "refused"):
                print(f"{outcome.kind:8} {name}: {outcome.detail}", flush=True)
    counts = Counter(o.kind for o in outcomes.values())
    print(f"{len(outcomes)} cases: " + ", ".join(f"{n} {kind}" for kind, n in counts.most_common()))
    if args.update and not args.pattern:
        refused = [name for name, outcome in outcomes.items() if outcome.kind == "refused"]
        REFUSED.write_text("\n".join(sorted(refused)) + "\n", "utf-8")
    return 1 if counts["wrong"] or counts["crash"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
