"""Tables and figures of docs/study.md from the records in docs/study/, and those records from finished runs.

    python benchmarks/study/report.py                        # tables into docs/study.md, figures into docs/study/
    python benchmarks/study/report.py --collect runs/study   # first take in what run.py has finished there

Nothing in docs/study.md between `<!-- NAME -->` and `<!-- end -->` is written by hand.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from figures import figures
from records import DOCS, collect
from studies import STUDIES
from tables import tables

from rlcsd.storage import write_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collect", type=Path, metavar="OUT", help="the --out of run.py")
    arguments = parser.parse_args()
    if arguments.collect:
        collect(arguments.collect, STUDIES)
    page = (DOCS / "study.md").read_text(encoding="utf-8")
    for name, text in tables().items():
        page = re.sub(
            rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", lambda m, text=text: m[1] + text + m[2], page, flags=re.S
        )
    write_text(DOCS / "study.md", page)
    figures()


if __name__ == "__main__":
    main()
