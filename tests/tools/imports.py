#!/usr/bin/env python3
"""A picture of who imports whom: modules, arrows, circles, and arrows that point up.

    tests/tools/imports.py [DIR] [--page FILE] [--list]

DIR is the root of the repository, by default this one. A module is a file of `src` or of a crate in `crates`; an
arrow goes from the module that names something to the one that defines it, however many names lie between: what a
module only re-exports belongs to the file that it comes from. `mod child;` and a parent's re-export of its own
child are no arrows; a child that uses what its parent defines, while the parent uses the child, is a circle.
Tests inside of modules do not count. First between the top-level modules (a crate is one of them), then between
the files of each folder (what lies deeper counts for the child that it lies in), then between all files.

The order is read from FILE, by default DIR/ARCHITECTURE.md, where a fenced block that begins with ```imports FOLDER
(or ```imports, for the top-level modules) has a line for each floor, the highest first: the names of its modules, and
after an arrow (→) what they may import; without one that is everything on the lines below. An arrow that does not
go to a lower line points up. --list prints the arrows too. Reads text, no compiler: it sees `use`, nested or not,
and paths in code.
"""

import argparse
import collections
import pathlib
import re

NOISE = re.compile(r"""//[^\n]*|/\*.*?\*/|\bb?r(\#*)".*?"\1|b?"(?:\\.|[^"\\])*"|b?'(?:\\(?:u\{\w+\}|x\w\w|.)|[^'\\])'""",
                   re.DOTALL)
USE = re.compile(r"(?<!\w)(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);")
PATH = re.compile(r"(?<![\w:])\w+(?:\s*::\s*\w+)+")
DEFINED = re.compile(r"\b(?:struct|enum|union|trait|type|fn|const|static)\s+(\w+)|\bmacro_rules!\s*(\w+)")
BLOCK = re.compile(r"^```imports *(\S*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


class Module:
    """A file: what it defines, and the paths that it names."""

    def __init__(self, path, file):
        self.path, self.file = path, file
        text = NOISE.sub(lambda noise: '""' if noise[0][-1] in "\"'" else " ", file.read_text("utf-8"))
        text = of_one_module(without_tests(text))
        outermost = at_depth_0(text)
        self.defined = {one or other for one, other in DEFINED.findall(outermost)}
        self.exported_macros = set(re.findall(r"#\[macro_export\]\s*macro_rules!\s*(\w+)", outermost))
        # Of each `use`: whether it is public, the path, the name that it gives ("*" for all).
        self.uses = [(bool(public), *one) for public, tree in USE.findall(text) for one in expand(tree)]
        self.inline = [re.split(r"\s*::\s*", found) for found in PATH.findall(USE.sub("", text))]


def without_tests(text):
    while (start := text.find("#[cfg(test)]")) >= 0:
        end = min(found for sign in ";{" if (found := text.find(sign, start)) >= 0)
        text = text[:start] + text[end + 1 if text[end] == ";" else closing(text, end) + 1:]
    return text


def of_one_module(text):
    """A module written inside of a file is taken for the file's own: what it calls `super` is the file."""
    for inner in re.finditer(r"\bmod\s+\w+\s*\{", text):
        end = closing(text, inner.end() - 1)
        text = text[:inner.end()] + re.sub(r"\bsuper\b", " self", text[inner.end():end]) + text[end:]
    return text


def closing(text, opening):
    depth = 0
    for sign in re.compile(r"[{}]").finditer(text, opening):
        depth += 1 if sign[0] == "{" else -1
        if depth == 0:
            return sign.start()
    raise ValueError("a brace is never closed")


def at_depth_0(text):
    kept, at = "", 0
    while (opening := text.find("{", at)) >= 0:
        kept, at = kept + text[at:opening] + "{}", closing(text, opening) + 1
    return kept + text[at:]


def expand(tree, before=()):
    """The paths of a tree of `use`, each with the name that it gives."""
    tree = tree.strip()
    head, brace, rest = tree.partition("{")
    if not brace:
        path, _, alias = re.sub(r"\s+as\s+", " as ", tree).partition(" as ")
        whole = [*before, *filter(None, re.split(r"\s*::\s*", path.strip()))]
        if whole[-1] == "self" and len(whole) > 1:
            whole.pop()
        return [(whole, alias or whole[-1])]
    before = [*before, *filter(None, re.split(r"\s*::\s*", head.strip()))]
    parts, depth, part = [], 0, ""
    for sign in rest[:rest.rindex("}")]:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if sign == "," and depth == 0:
            parts, part = [*parts, part], ""
        else:
            part += sign
    return [one for inner in [*parts, part] if inner.strip() for one in expand(inner, before)]


class Program:
    def __init__(self, root):
        self.modules = {}
        # The names by which code calls a crate, and what the picture calls it.
        self.crates = {"sorteo": "sorteo"}
        for manifest in sorted(root.glob("crates/*/Cargo.toml")):
            package = re.search(r'^name = "(.*)"', manifest.read_text("utf-8"), re.MULTILINE)[1]
            self.crates[package.replace("-", "_")] = manifest.parent.name
            self.read(manifest.parent / "src", manifest.parent.name)
        self.read(root / "src", "sorteo")
        self.arrows = {(module.path, target) for module in self.modules.values() for target in self.targets(module)
                       if module.path != target}

    def read(self, sources, crate):
        for file in sorted(sources.rglob("*.rs")):
            parts = file.relative_to(sources).with_suffix("").parts
            path = (crate,) if parts == ("lib",) else (crate, *parts)
            self.modules[path] = Module(path, file)

    def targets(self, module):
        for public, path, _ in module.uses:
            target = self.resolve(module, path)
            # `pub use self::child::X` moves a name; the parent does not use it.
            if target and not (public and is_inside(target, module.path)):
                yield target
        for path in module.inline:
            if target := self.resolve(module, path):
                yield target

    def resolve(self, module, path, seen=()):
        """The file that defines what the path names, seen from the module; None if it is none of ours."""
        if (module.path, tuple(path)) in seen:
            return None
        seen = (*seen, (module.path, tuple(path)))
        first, *rest = path
        if first in ("crate", "self", "super"):
            start = {"crate": module.path[:1], "self": module.path, "super": module.path[:-1]}[first]
            return self.descend(start, rest, seen)
        if (*module.path, first) in self.modules:
            return self.descend((*module.path, first), rest, seen)
        for _, used, name in module.uses:
            if name == first != used[0] and rest:
                return self.resolve(module, [*used, *rest], seen)
        if first in self.crates:
            return self.descend((self.crates[first],), rest, seen)
        return None

    def descend(self, at, rest, seen):
        while rest and (rest[0] == "super" or (*at, rest[0]) in self.modules):
            at, rest = at[:-1] if rest[0] == "super" else (*at, rest[0]), rest[1:]
        module = self.modules.get(at)
        if not rest or module is None or rest[0] in module.defined:
            return at if module else None
        if len(at) == 1:
            for other in self.modules.values():
                if other.path[0] == at[0] and rest[0] in other.exported_macros:
                    return other.path
        for _, used, name in module.uses:
            if name == rest[0]:
                return self.resolve(module, [*used, *rest[1:]], seen) or at
        for _, used, name in module.uses:
            glob = name == "*" and self.resolve(module, used[:-1], seen)
            if glob and rest[0] in self.modules[glob].defined:
                return glob
        return at

    def folders(self):
        # The top is shown by itself; the folder of a crate is its root.
        return sorted({path[:-1] for path in self.modules if len(path) > 1} - {("sorteo",)})

    def inside(self, folder):
        """The arrows between the parts of a folder; the folder's own file is the part `self`."""
        def part(path):
            return path[len(folder)] if len(path) > len(folder) else "self"
        return {(part(source), part(target)) for source, target in self.arrows
                if is_inside(source, folder) and is_inside(target, folder) and part(source) != part(target)}

    def top(self):
        """The arrows between the modules of the root package and the other crates."""
        def part(path):
            return path[0] if path[0] != "sorteo" else path[1] if len(path) > 1 else "lib"
        return {(part(source), part(target)) for source, target in self.arrows if part(source) != part(target)}


def is_inside(path, folder):
    return path[:len(folder)] == folder


def circles(arrows):
    """The strongly connected components of more than one part: those that reach each other."""
    targets = collections.defaultdict(set)
    for source, target in arrows:
        targets[source].add(target)
    reached = {}
    for start in list(targets):
        stack, reached[start] = [start], set()
        while stack:
            for target in targets[stack.pop()] - reached[start]:
                reached[start].add(target)
                stack.append(target)
    found = {frozenset(other for other in reached[one] if one in reached.get(other, ())) for one in reached}
    return sorted((sorted(circle) for circle in found if len(circle) > 1), key=lambda circle: (-len(circle), circle))


class Floors:
    """What a block of the page allows."""

    def __init__(self, block):
        self.level, self.allowed = {}, {}
        for number, line in enumerate(filter(str.strip, block.splitlines())):
            names, arrow, targets = line.partition("→")
            for name in names.split():
                self.level[name] = number
                self.allowed[name] = set(targets.split()) if arrow else None

    def is_up(self, arrow):
        source, target = arrow
        return not self.level.get(source, 10**6) < self.level.get(target, -1)

    def is_forbidden(self, arrow):
        source, target = arrow
        allowed = self.allowed.get(source)
        return self.is_up(arrow) or (allowed is not None and target not in allowed)


def show(title, parts, arrows, floors=None, listed=False):
    found = circles(arrows)
    up = sorted(filter(floors.is_up, arrows)) if floors else []
    forbidden = sorted(set(filter(floors.is_forbidden, arrows)) - set(up)) if floors else []
    print(f"{title}: {parts} modules, {len(arrows)} arrows, {len(found)} circles"
          + (f", {len(up)} arrows up, {len(forbidden)} others not allowed" if floors else ""))
    for circle in found:
        print(f"    circle of {len(circle)}: {' '.join(circle)}")
    for what, which in (("up", up), ("not allowed", forbidden)):
        for source, target in which:
            print(f"    {what}: {source} -> {target}")
    if listed:
        for source in sorted({source for source, _ in arrows}):
            print(f"    {source} -> {' '.join(sorted(target for one, target in arrows if one == source))}")


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("root", metavar="DIR", nargs="?", type=pathlib.Path,
                         default=pathlib.Path(__file__).resolve().parents[2])
    options.add_argument("--page", metavar="FILE", type=pathlib.Path)
    options.add_argument("--list", action="store_true", help="print the arrows")
    options = options.parse_args()
    program = Program(options.root)
    page = (options.page or options.root / "ARCHITECTURE.md").read_text("utf-8")
    floors = {name: Floors(block) for name, block in BLOCK.findall(page)}
    names = {path: "/".join(path[1:] if path[0] == "sorteo" else path) for path in program.modules}
    top = program.top()
    show("top", len({part for arrow in top for part in arrow}), top, floors.get(""), options.list)
    for folder in program.folders():
        arrows = program.inside(folder)
        name = names[folder]
        parts = {path[:len(folder) + 1] for path in program.modules if is_inside(path, folder)}
        show(name, len(parts), arrows, floors.get(name), options.list)
    show("all files", len(names), {(names[source], names[target]) for source, target in program.arrows})


if __name__ == "__main__":
    main()
