"""house.py CHECK ROOT: rules of the whole tree that no compiler checks.

CHECK is includes, names, listed, labels, readmes or words; ROOT is the repository. Every fault is one line
that says where, what and the remedy; the exit status is 1 if there is one. planted.py proves that
each rule finds what it is there to find.
"""

import re
import sys
from pathlib import Path

ROOMS = ["alloc", "barrier", "roots", "gc"]  # bottom up
SOURCE = {".h", ".cc", ".c"}
TEXT = SOURCE | {".md", ".py", ".sh", ".build", ".txt", ".in", ""}
SKIPPED = {"build", ".git", ".cache", "__pycache__"}

# Third-party headers by prefix, and the files (by prefix) that may include them. All other headers
# in <> are the standard library's or the system's.
THIRD_PARTY = {
    "fmt/": ["alloc/base/log.cc"],
    "libunwind": ["roots/unwind.cc"],
    "catch2/": ["test/"],
    "benchmark/": ["bench/"],
    "gc.h": ["bench/", "test/install/"],
    "gc_cpp.h": ["bench/", "test/install/"],
    "gc/": ["bench/", "test/install/"],
    "boost/": [],
    "absl/": [],
    "gtest/": [],
}
# Boehm's headers are named in our texts and are not ours.
FOREIGN_FILES = {"gc.h", "gc_cpp.h", "gc/gc.h", "gc/gc_cpp.h"}


def files(root, suffixes, *folders):
    """The tree's files with these suffixes (in these folders), as paths from the root."""
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        if SKIPPED.isdisjoint(name.parts) and path.suffix in suffixes and path.is_file():
            if not folders or name.parts[0] in folders:
                yield name


def lines(root, name):
    return enumerate((root / name).read_text("utf-8", "replace").splitlines(), 1)


def layer(name):
    """0 for alloc/base, 1 to 4 for the rooms, 5 for what stands on all of them."""
    if name.parts[:2] == ("alloc", "base"):
        return 0
    if name.parts[0] == "test" and len(name.parts) > 2:
        return layer(Path(*name.parts[1:]))  # test/<room> obeys the room's rule
    return ROOMS.index(name.parts[0]) + 1 if name.parts[0] in ROOMS else 5


def is_public(name):
    return name.parts[0] in ROOMS and name.parts[1:3] == ("include", "tricolor")


def public_headers(root):
    """<tricolor/...> as it is installed -> the files it stands for."""
    found = {}
    for name in files(root, {".h"}, *ROOMS):
        if is_public(name):
            found.setdefault("/".join(name.parts[2:]), []).append(name)
    return found


def includes(root):
    """An include goes to the same layer or down, and to third parties only where they are at home."""
    installed = public_headers(root)
    for name in files(root, SOURCE):
        for number, line in lines(root, name):
            match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
            if not match:
                continue
            quoted, target = match[1] == '"', match[2]
            where = f"{name}:{number}: includes {target}"
            if quoted:
                if is_public(name):
                    yield f"{where}: a public header includes public headers only, as <tricolor/...>"
                elif name.parts[0] in ("examples", "bench") and target.startswith(tuple(f"{r}/" for r in ROOMS)):
                    yield f"{where}: {name.parts[0]} use what users have, <tricolor/...>"
                elif name.parts[0] in ROOMS and not target.startswith(tuple(f"{r}/" for r in ROOMS)):
                    yield f'{where}: write private includes from the root, "room/thing.h"'
                elif target.startswith(tuple(f"{r}/" for r in ROOMS)):
                    yield from downwards(name, Path(target), where)
            elif target in installed:
                yield from downwards(name, installed[target][0], where)
            else:
                for prefix, homes in THIRD_PARTY.items():
                    if target.startswith(prefix) and not str(name).startswith(tuple(homes)):
                        allowed = " and ".join(homes) or "nowhere"
                        yield f"{where}: this third party is at home in {allowed}; call that instead"


def downwards(name, target, where):
    if layer(target) > layer(name):
        yield (f"{where}, which lies above: move what is needed down, or let the caller above do it "
               f"(order: alloc/base, {', '.join(ROOMS)})")


def names(root):
    """Installed names are unique, and nothing of ours shadows Boehm's headers."""
    for header, homes in public_headers(root).items():
        if len(homes) > 1:
            yield f"{header} is installed from {' and '.join(map(str, homes))}: rename one"
    for name in files(root, {".h"}, "gc"):
        if len(name.parts) == 2 and re.fullmatch(r"gc(_.*)?\.h", name.name):
            yield f"{name}: would hide Boehm's <{name}> from whoever has -I<our root>: rename it"


def listed(root):
    """What no meson.build lists is not compiled, not installed, or a test that never runs."""
    for name in files(root, SOURCE, *ROOMS, "test"):
        home = Path(name.parts[0], "meson.build")
        if name.parts[:2] == ("test", "install") or not (name.suffix == ".cc" or is_public(name)):
            continue
        if f"'{name.relative_to(home.parent)}'" not in (root / home).read_text("utf-8"):
            yield f"{name}: is not in {home}: list it there"


LABEL = r"[a-z][a-z0-9-]*\.[a-z0-9][a-z0-9-]*"


def labels(root):
    """An invariant is defined once, `// Invariant [x.y]: ...`; whoever names one names one that is."""
    homes = {}
    for name in files(root, SOURCE, *ROOMS):
        for number, line in lines(root, name):
            for label in re.findall(rf"//.*\bInvariant \[({LABEL})\]:", line):
                homes.setdefault(label, []).append(f"{name}:{number}")
    for label, places in homes.items():
        if len(places) > 1:
            yield f"[{label}] is defined at {' and '.join(places)}: keep the one where the data is declared"
    remedy = "define it where the data is declared, `// Invariant [{}]: ...`, or correct the label"
    for name in files(root, SOURCE, *ROOMS):
        text = (root / name).read_text("utf-8", "replace")
        for number, label in checked_labels(text):
            if not re.fullmatch(LABEL, label):
                yield f'{name}:{number}: checks "{label}": a label is two words, "thing.rule"'
            elif label not in homes:
                yield f"{name}:{number}: checks [{label}], which is not defined: {remedy.format(label)}"
    for name in files(root, SOURCE | {".md"}):
        for number, line in lines(root, name):
            comment = line if name.suffix == ".md" else line.partition("//")[2]
            for label in re.findall(rf"\[({LABEL})\](?!\()", comment):
                if label not in homes:
                    yield f"{name}:{number}: names [{label}], which is not defined: {remedy.format(label)}"


def checked_labels(text):
    """(line, label) for every check(condition, "label", ...) and dcheck in a source text."""
    for call in re.finditer(r"\bd?check\(", text):
        arguments = split_arguments(text, call.end())
        if len(arguments) > 1 and (label := re.fullmatch(r'"([^"]*)"', arguments[1])):
            yield text.count("\n", 0, call.start()) + 1, label[1]


def split_arguments(text, start):
    """The arguments of the call whose parenthesis has just been opened."""
    arguments, depth, first = [], 0, start
    for token in re.finditer(r'"(?:\\.|[^"\\])*"|//[^\n]*|[()\[\]{},]', text[start:]):
        mark, at = token[0], start + token.start()
        if mark in "([{":
            depth += 1
        elif mark in ")]}":
            depth -= 1
        if depth < 0 or (mark == "," and depth == 0):
            arguments.append(text[first:at].strip())
            first = at + 1
        if depth < 0:
            break
    return arguments


def readmes(root):
    """A README names files and folders that exist, and shows examples/hello.cc as it is."""
    everything = [str(name) for name in files(root, TEXT | {".cmake"})]
    for name in files(root, {".md"}):
        text = (root / name).read_text("utf-8")
        prose = re.sub(r"^```.*?^```", lambda block: "\n" * block[0].count("\n"), text, flags=re.M | re.S)
        for number, line in enumerate(prose.splitlines(), 1):
            spans = re.findall(r"`([^`]+)`", line)
            links = [link for link in re.findall(r"\]\(([^)#\s]+)\)", line) if ":" not in link]
            for word in [w.strip(",;:()<>\"'") for span in spans for w in span.split()] + links:
                if names_a_file(word) and not exists(root, name, word, everything):
                    yield f"{name}:{number}: names {word}, which does not exist: correct the name, or remove it"
    hello = (root / "examples/hello.cc").read_text("utf-8")
    hello = re.sub(r"\A(//.*\n)+", "", hello)
    readme = root / "README.md"
    if not readme.is_file() or f"```cpp\n{hello}```" not in readme.read_text("utf-8"):
        yield "README.md: the first program is not examples/hello.cc: copy the file, without its first comment"


def names_a_file(word):
    if word in FOREIGN_FILES or re.search(r"[*<>{}$|=…]", word) or word.startswith(("/", "-", "~")):
        return False
    if word.endswith("/"):
        return word.split("/")[0] in ROOMS + ["examples", "test", "bench", ".ci"]
    return re.search(r"\w\.(h|cc|c|md|py|sh|build|txt)$", word) is not None


def exists(root, readme, word, everything):
    here = word.rstrip("/")
    return ((root / here).exists() or (root / readme.parent / here).exists()
            or any(file.endswith(f"/{here}") for file in everything))


def words(root):
    """No unfinished work is left in the tree, and it does not name the place it was made at."""
    unfinished = re.compile(r"\b(TO[D]O|FIX[M]E)\b")
    workplace = re.compile(r"/wor[k]/|\bshare[d]/(design|house|api|targets|reference)|\b(hous[e]|desig[n]|ap[i]|target[s])\.md\b")
    for name in files(root, TEXT | {".cmake"}):
        for number, line in lines(root, name):
            if match := unfinished.search(line):
                yield f"{name}:{number}: says {match[0]}: finish it, or file an issue and cite that"
            if match := workplace.search(line):
                yield f"{name}:{number}: names {match[0]}, which readers do not have: say here what it says"


CHECKS = {check.__name__: check for check in (includes, names, listed, labels, readmes, words)}

if __name__ == "__main__":
    faults = list(CHECKS[sys.argv[1]](Path(sys.argv[2]).resolve()))
    sys.exit("\n".join(faults) or 0)
