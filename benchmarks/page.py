"""How fast the page of `rlcsd show` is in a browser: 500 rollouts of 1,000 tokens with all signals.

    python benchmarks/page.py [--smoke]     # needs Chromium and its driver, and pip install selenium

Prints the page's size, the time from the start of loading until the first rollout is on the screen, and the time that
moving to another rollout takes, as the browser's own clock gives them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from common import median, options, parsed, write

sys.path.insert(0, str(Path(__file__).parents[1]))
from rlcsd.report.page import write_page
from tests.report.browser import chromium
from tests.report.folders import write_run

MOVE = """
const begun = performance.now();
document.dispatchEvent(new KeyboardEvent("keydown", { key: "j", bubbles: true }));
document.body.getBoundingClientRect();
return performance.now() - begun;
"""


def worked(browser: Any) -> float:
    """CPU seconds of the page's main thread so far."""
    metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return float(next(one["value"] for one in metrics if one["name"] == "TaskDuration"))


def main() -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--rollouts", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=1000)
    arguments = parsed(parser)
    if arguments.smoke:
        arguments.rollouts, arguments.tokens = 10, 20
    with tempfile.TemporaryDirectory() as folder:
        run = write_run(Path(folder) / "run", arguments.rollouts // 10, 1, 10, arguments.tokens)
        page = Path(folder) / "page.html"
        print(write_page(run, page), f"{page.stat().st_size / 1e6:.1f} MB", sep="; ")
        with chromium() as browser:
            ready, busy = [], []
            browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
            for _ in range(arguments.rounds):
                browser.get("about:blank")
                before = worked(browser)
                browser.get(page.as_uri())
                busy.append(1000 * (worked(browser) - before))
                ready.append(int(browser.execute_script("return document.documentElement.dataset.ready")))
            moves = [browser.execute_script(MOVE) for _ in range(20)]
    print(f"first rollout on the screen after {median(ready)} ms (of {arguments.rounds}: {ready})")
    print(f"of which the page's thread worked {median(busy):.0f} ms, which other programs change little")
    print(f"another rollout: {median(moves):.0f} ms (median of 20; slowest {max(moves):.0f})")
    write(arguments.json, {"ready": ready, "busy": busy, "moves": moves})


if __name__ == "__main__":
    main()
