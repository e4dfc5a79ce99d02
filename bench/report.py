"""report.py FOLDER: tables of what bench/run.sh has measured, on stdout, as report.html and as table.md.

FOLDER/samples.txt has a line of key=value pairs for each run (question.h), with round= and label= in
front, and lines that begin with # and describe the machine and the build. A case is what was asked:
the pairs before the first measurement. Shown are medians over the rounds, the least and the most, and as the
ratio to Boehm (to malloc, where Boehm does not take part) the median of the rounds' own ratios.
The exit status is 1 when contestants disagree on a case's check.
"""

import html
import io
import statistics
import sys

try:
    import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot
except ImportError:
    pyplot = None  # The report has no plots then, and says so.

# What each question asks, and its measurements.
QUESTIONS = {
    "gcbench": ("GCBench: short-lived trees beside a long-lived one", ["wall_ms"]),
    "trees": ("Binary trees", ["wall_ms"]),
    "allocate": ("One allocation, the last 1000 kept", ["ns_each"]),
    "mark": ("A full collection of a heap that lives", ["collect_ms", "ns_each"]),
    "ring": ("A ring of messages of 1 KiB: one push",
             ["mean_ns", "p99_ns", "p999_ns", "longest_us", "pause_us_per_cycle", "pause_us_max"]),
    "footprint": ("Footprint under churn: peak memory by the bytes that live", ["footprint", "churn_ms"]),
    "threads": ("Many threads on few processors", ["wall_ms", "longest_ms", "pause_us_max"]),
    "pauses": ("How long the stops are, and what one operation feels of them",
               ["longest_us", "p9999_us", "mean_ns", "taken_us_p99", "taken_us_max", "stops",
                "stop_us_median", "stop_us_p99", "stop_us_max", "first_us_median", "first_us_p99", "last_us_median", "last_us_p99",
                "concurrent_percent"]),
    "barrier": ("One pointer store", ["store_ns", "construct_ns", "copy_ns", "plain_ns", "make_ns", "make_with_ns", "beside"]),
}
MEMORY = "peak_rss_mb"
REFERENCES = ["boehm", "malloc"]  # the first that takes part is what ratios are to
NOT_THE_CASE = {"round", "label", "question", "contestant"}
NOT_SHOWN = {"check", "histogram", MEMORY}
COLOURS = {"tricolor": "#1b6ca8", "boehm": "#c0562f", "malloc": "#7a7a7a", "mimalloc": "#b0a14a"}


def read(path):
    """The description, and question -> case -> label -> that contestant's runs, one a round."""
    about, questions = [], {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith("#"):
                about.append(line[1:].strip())
                continue
            run = dict(word.split("=", 1) for word in line.split())
            first = QUESTIONS[run["question"]][1][0]
            keys = list(run)
            case = " ".join(f"{key}={run[key]}" for key in keys[:keys.index(first)] if key not in NOT_THE_CASE)
            cases = questions.setdefault(run["question"], {})
            cases.setdefault(case, {}).setdefault(run["label"], []).append(run)
    return about, questions


class Cell:
    """One measurement of one contestant: over all rounds, and against the reference."""

    def __init__(self, runs, reference, metric):
        self.values = [float(run[metric]) for run in runs if metric in run]
        self.ratio = None
        if self.values and reference and metric in reference[0]:
            pairs = [(a, float(run[metric])) for a, run in zip(self.values, reference)]
            ratios = [a / b for a, b in pairs if b > 0]
            self.ratio = statistics.median(ratios) if ratios else None

    def words(self):
        """The median, the range and the ratio, as text."""
        if not self.values:
            return "-", "", ""
        low, high = number(min(self.values)), number(max(self.values))
        return (number(statistics.median(self.values)),
                f"({low}–{high})" if len(self.values) > 1 else "",
                f"×{self.ratio:.2f}" if self.ratio is not None else "")


def number(value):
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(metrics, runs_of):
    """label -> (its cells, what the contestant says of itself in its last run)."""
    reference = next((name for name in REFERENCES if name in runs_of), None)
    rows = {}
    for label, runs in runs_of.items():
        cells = [Cell(runs, runs_of[reference] if reference not in (None, label) else None, metric)
                 for metric in metrics + [MEMORY]]
        keys = list(runs[-1])
        own = [key for key in keys[keys.index("check"):] if key not in NOT_SHOWN and key not in metrics]
        rows[label] = cells, " ".join(f"{key}={runs[-1][key]}" for key in own)
    return reference, rows


def print_table(name, case, metrics, reference, rows):
    lines = [["", *metrics, MEMORY, ""]]
    for label, (cells, own) in rows.items():
        lines.append([label, *(" ".join(filter(None, cell.words())) for cell in cells), own])
    widths = [max(map(len, column)) for column in zip(*lines)]
    print(f"\n{name} {case}" + (f"  (× to {reference})" if reference else ""))
    for line in lines:
        print("  " + "  ".join(word.ljust(width) for word, width in zip(line, widths)).rstrip())


def html_table(metrics, reference, rows):
    head = "".join(f"<th>{metric}</th>" for metric in metrics + [MEMORY])
    out = [f"<table><tr><th></th>{head}<th>in the last round</th></tr>"]
    for label, (cells, own) in rows.items():
        row = []
        for cell in cells:
            median, span, ratio = cell.words()
            row.append(f"<td>{median} <small>{span}</small> <b>{ratio}</b></td>")
        out.append(f"<tr><th>{html.escape(label)}</th>{''.join(row)}<td><small>{html.escape(own)}</small></td></tr>")
    out.append("</table>")
    if reference:
        out.append(f"<p><small>× is the ratio to {reference}.</small></p>")
    return "\n".join(out)


def svg(figure):
    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
    pyplot.close(figure)
    return text.getvalue()[text.getvalue().index("<svg"):]


def bars(metrics, rows):
    """A plot for each measurement: medians as bars, the least and the most as whiskers."""
    shown = metrics + [MEMORY]
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    figure, axes = pyplot.subplots(lines, columns, squeeze=False,
                                   figsize=(3.2 * columns, (0.35 * len(rows) + 0.7) * lines))
    for index, axis in enumerate(axes.flat):
        if index >= len(shown):
            axis.set_visible(False)
            continue
        cells = {label: row[0][index] for label, row in rows.items() if row[0][index].values}
        medians = [statistics.median(cell.values) for cell in cells.values()]
        below = [middle - min(cell.values) for middle, cell in zip(medians, cells.values())]
        above = [max(cell.values) - middle for middle, cell in zip(medians, cells.values())]
        axis.barh(list(cells), medians, xerr=[below, above], capsize=3,
                  color=[COLOURS.get(label, "#888888") for label in cells])
        axis.invert_yaxis()
        axis.set_title(shown[index], fontsize=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return svg(figure)


def histogram(runs_of):
    """How many operations of all rounds took how long, both on logarithmic axes."""
    figure, axis = pyplot.subplots(figsize=(9, 3.2))
    for label, runs in runs_of.items():
        counts = {}
        for run in runs:
            for bucket in run["histogram"].split(","):
                least, count = map(int, bucket.split(":"))
                counts[least] = counts.get(least, 0) + count
        ends = {least + (1 << max(least.bit_length() - 4, 0)): 0 for least in counts}
        steps = sorted((ends | counts).items())  # the end of a bucket is zero, or the next one's least
        axis.step([max(time, 1) for time, _ in steps], [count for _, count in steps], where="post",
                  linewidth=1, label=label, color=COLOURS.get(label))
    axis.set_xscale("log")
    axis.set_yscale("log", nonpositive="clip")
    axis.set_ylim(bottom=0.5)
    axis.set_xlabel("time of one operation, ns")
    axis.set_ylabel("operations")
    axis.legend(frameon=False)
    axis.grid(alpha=0.3)
    return svg(figure)


def markdown(about, questions):
    """The table of bench/README.md: a line for each measurement of each case."""
    labels = list(dict.fromkeys(label for cases in questions.values() for runs in cases.values() for label in runs))
    out = [f"    {line}" for line in about]
    out += ["", "| | | " + " | ".join(labels) + " | tricolor to boehm |", "|---|---|" + "--:|" * (len(labels) + 1)]
    for name, cases in questions.items():
        for case, runs_of in cases.items():
            for metric in QUESTIONS[name][1] + [MEMORY]:
                cells = {label: Cell(runs, runs_of.get("boehm"), metric).words() for label, runs in runs_of.items()}
                row = [" ".join(filter(None, cells.get(label, ("-",))[:2])) for label in labels]
                ratio = cells.get("tricolor", ("", "", "-"))[2]
                out.append(" | ".join([f"| {name} {case}", metric, *row, ratio]) + " |")
    return "\n".join(out) + "\n"


STYLE = """body { font: 15px sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; } td, th { padding: .2em .7em; text-align: left; border-bottom: 1px solid #ddd; }
svg { max-width: 100%; height: auto; } h3 { font: bold 14px monospace; margin-top: 2em; }"""


def main(folder):
    about, questions = read(f"{folder}/samples.txt")
    if pyplot:
        pyplot.rcParams["svg.fonttype"] = "none"
    out = ["<!DOCTYPE html><html lang=en><meta charset=utf-8><title>tricolor: benchmarks</title>",
           f"<style>{STYLE}</style><h1>tricolor against its peers</h1>",
           "<p>" + "<br>".join(map(html.escape, about)) + "</p>"]
    if not pyplot:
        out.append("<p>No plots: Python's matplotlib is not installed.</p>")
    faults = []
    for name, cases in questions.items():
        sentence, metrics = QUESTIONS[name]
        out.append(f"<h2>{html.escape(sentence)}</h2>")
        for case, runs_of in cases.items():
            reference, rows = table(metrics, runs_of)
            print_table(name, case, metrics, reference, rows)
            out += [f"<h3>{html.escape(f'{name} {case}')}</h3>", html_table(metrics, reference, rows)]
            if pyplot:
                out.append(bars(metrics, rows))
                if all("histogram" in run for runs in runs_of.values() for run in runs):
                    out.append(histogram(runs_of))
            checks = {run["check"] for runs in runs_of.values() for run in runs}
            if len(checks) > 1:
                faults.append(f"bench: {name} {case}: the contestants disagree: check is {sorted(checks)}")
    out.append("</html>\n")
    for file_name, text in (("report.html", "\n".join(out)), ("table.md", markdown(about, questions))):
        with open(f"{folder}/{file_name}", "w", encoding="utf-8") as file:
            file.write(text)
    return faults


if __name__ == "__main__":
    sys.exit("\n".join(main(sys.argv[1])) or 0)
