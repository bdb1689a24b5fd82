"""gitstore beside what people would use instead, in one run: `make bench`.

    uv run python -m bench [--small | --full | --tiny] [--only NAME ...] [--sizes 10,1000] [--list]

A small run (the default) takes about three minutes, with projects of 10 and 1,000 versions; a full one about
an hour, with up to 100,000; a tiny one shows that the measures work. The projects are made at the first run,
and kept in bench/.cache. Results are printed, and written to bench/results: a table, JSON, and a plot of
every figure relative to its bar.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bench import costs, environments, fetches, memory, pushes, reads, report, seeds, writes
from bench.measures import FULL, MEASURES, SMALL, TINY, Form, Measure
from bench.peers import SkippedError
from bench.report import Row
from bench.rig import Rig

_MODULES = [module.__name__ for module in (reads, writes, environments, pushes, fetches, costs, memory)]
HERE = Path(__file__).parent


def run(rig: Rig, measures: Sequence[Measure]) -> Iterator[Row]:
    """Run the measures of the sizes that the rig has. One that fails becomes a row with the reason."""
    for measure in measures:
        if measure.size not in (None, *rig.form.sizes):
            continue
        try:
            figures = measure.run(rig, measure.size or rig.largest)
        except SkippedError as reason:
            yield Row(measure.name, measure.what, "", None, None, f"skipped: {reason}")
        except Exception as error:
            rig.report(traceback.format_exc(limit=-2, chain=False))
            yield Row(measure.name, measure.what, "", None, None, f"{type(error).__name__}: {error}"[:300])
        else:
            for name, figure in figures.items():
                yield Row(measure.name, measure.what, name, figure, measure.bars.get(name))


def chosen(patterns: Sequence[str]) -> list[Measure]:
    """Return the measures, in the order of the modules and of their functions, the smallest size first."""
    runs = [measure.run for measure in MEASURES]
    measures = sorted(
        MEASURES, key=lambda one: (_MODULES.index(one.run.__module__), runs.index(one.run), one.size or 0)
    )
    return [one for one in measures if not patterns or any(one.name.startswith(text) for text in patterns)]


def form(options: argparse.Namespace) -> Form:
    made: Form = options.form
    return replace(made, sizes=tuple(map(int, options.sizes.split(",")))) if options.sizes else made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    forms = parser.add_mutually_exclusive_group()
    for one in (SMALL, FULL, TINY):
        forms.add_argument(f"--{one.name}", dest="form", action="store_const", const=one, default=SMALL)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="names, or their beginnings")
    parser.add_argument("--sizes", help="numbers of versions, such as 10,10000")
    parser.add_argument("--folder", type=Path, default=HERE, help="for .cache and results, instead of bench")
    parser.add_argument("--list", action="store_true", help="list the measures")
    options = parser.parse_args()
    measures = chosen(options.only)
    if options.list or not measures:
        for measure in measures or chosen([]):
            print(f"{measure.name:<24} {measure.what}: {', '.join(map(str, measure.bars.values()))}")
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the servers are stopped then, too
    load, begun = os.getloadavg()[0], time.time()
    done: list[Row] = []
    print(f"{report.machine()}; load {load:.1f}\n{report.columns(report.HEADER)}")
    cache = options.folder / seeds.CACHE.name
    with Rig(form(options), report=lambda text: print(f"    {text}", flush=True), cache=cache) as rig:
        try:
            for row in run(rig, measures):
                if not done or done[-1].measure != row.measure:
                    print(f"{row.about}  [{row.measure}]")
                done.append(row)
                print(report.columns([f"    {row.name}", *row.cells()[1:]]), flush=True)
        except KeyboardInterrupt:
            print("interrupted: what was measured is written")
    about: dict[str, object] = {
        "machine": report.machine(),
        "load before and after": f"{load:.1f}, {os.getloadavg()[0]:.1f}",
        "form": rig.form.name,
        "sizes": ", ".join(f"{size:,}" for size in rig.form.sizes),
        "seconds": round(time.time() - begun),
    }
    print(report.write(options.folder / "results", done, about))


if __name__ == "__main__":
    main()
