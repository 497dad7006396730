//! The dependency rule of ARCHITECTURE.md: the block there names the arrows that are
//! allowed, and these tests compare the imports of the program with it.

mod imports;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use self::imports::{Arrow, ModulePath, Program};
use self::tokens::Source;

/// For each top-level module and crate, in the order of the page: what it may import.
struct Rule(Vec<(String, BTreeSet<String>)>);

impl Rule {
    /// Reads the block of the page that begins with ```` ```imports ````.
    fn read(page: &str) -> Self {
        let block = page.split_once("\n```imports\n").and_then(|(_, behind)| behind.split_once("\n```"));
        let lines = block.expect("ARCHITECTURE.md has a block of imports").0.lines();
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let rows = lines.flat_map(|line| {
            let (names, allowed) = line.split_once('→').expect("an arrow in each line");
            let allowed: BTreeSet<String> = words(allowed).into_iter().collect();
            words(names).into_iter().map(move |name| (name, allowed.clone()))
        });
        Self(rows.collect())
    }

    /// What is wrong with the page's own lines: each may only name lines below it.
    fn arrows_up(&self) -> Vec<String> {
        let names: Vec<&String> = self.0.iter().map(|(name, _)| name).collect();
        let is_below = |at: usize, other: &String| names[at + 1..].contains(&other);
        let rows = self.0.iter().enumerate();
        let up = rows.flat_map(|(at, (name, allowed))| {
            allowed
                .iter()
                .filter(move |other| !is_below(at, other))
                .map(move |other| format!("{name} → {other}"))
        });
        up.collect()
    }

    /// The arrows of the program that no line allows.
    fn broken_by(&self, arrows: &BTreeSet<Arrow>) -> BTreeSet<String> {
        let rule: BTreeMap<_, _> = self.0.iter().map(|(name, allowed)| (&**name, allowed)).collect();
        let is_allowed =
            |from: &str, to: &str| from == to || rule.get(from).is_some_and(|to_all| to_all.contains(to));
        let broken = arrows.iter().filter(|(from, to)| !is_allowed(top_of(from), top_of(to)));
        broken.map(|(from, to)| format!("{} → {}", from.join("/"), to.join("/"))).collect()
    }
}

/// The top-level module of the root package, or the crate.
fn top_of(module: &ModulePath) -> &str {
    if module[0] == "sorteo" { module.get(1).map_or("lib", |name| name) } else { &module[0] }
}

/// The arrows that are part of a circle.
fn circles(arrows: &BTreeSet<Arrow>) -> Vec<String> {
    let reaches = |from: &ModulePath, to: &ModulePath| {
        let (mut reached, mut next) = (BTreeSet::from([from]), vec![from]);
        while let Some(module) = next.pop() {
            let steps = arrows.iter().filter(|(at, _)| at == module).map(|(_, to)| to);
            next.extend(steps.filter(|to| reached.insert(to)));
        }
        reached.contains(to)
    };
    let in_a_circle = arrows.iter().filter(|(from, to)| reaches(to, from));
    in_a_circle.map(|(from, to)| format!("{} → {}", from.join("/"), to.join("/"))).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rule() -> Rule {
    Rule::read(&std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap())
}

#[test]
fn the_program_imports_only_what_the_dependency_rule_allows() {
    let (program, rule) = (Program::read(root()), rule());
    assert_eq!(rule.arrows_up(), [""; 0], "the page itself");
    let all: BTreeSet<&str> = program.modules.keys().map(top_of).filter(|top| *top != "lib").collect();
    let named: BTreeSet<&str> = rule.0.iter().map(|(name, _)| &**name).collect();
    assert_eq!(named, all, "the page has a line for each module, and for no other");
    assert_eq!(rule.broken_by(&program.arrows()), BTreeSet::new());
}

#[test]
fn no_module_imports_one_that_imports_it() {
    assert_eq!(circles(&Program::read(root()).arrows()), [""; 0]);
}

/// Fails with the modules for which something is found that must not be there.
fn assert_absent(what: &str, is_exempt: impl Fn(&str) -> bool, has: impl Fn(&Source) -> bool) {
    let program = Program::read(root());
    let named = program.modules.iter().map(|(module, source)| (module.join("/"), source));
    let found = named.filter(|(module, source)| !is_exempt(module) && has(source)).map(|(module, _)| module);
    assert_eq!(found.collect::<Vec<_>>(), [""; 0], "{what}");
}

#[test]
fn what_architecture_md_calls_absent_is_absent() {
    let has_word =
        |words: &'static [&str]| move |source: &Source| words.iter().any(|word| source.words.contains(*word));
    let is_sqlite = |module: &str| module.starts_with("sorteo/store/sqlite");
    assert_absent(
        "SQLite's library",
        is_sqlite,
        has_word(&["rusqlite", "rusqlite_migration", "r2d2", "r2d2_sqlite"]),
    );
    let sql = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "PRAGMA ", "BEGIN", "COMMIT"];
    assert_absent("SQL", is_sqlite, |source| {
        source.strings.iter().any(|text| sql.iter().any(|verb| text.trim_start().starts_with(verb)))
    });
    let sockets = &["net", "TcpStream", "TcpListener", "UdpSocket", "mio", "socket2"];
    assert_absent("sockets", |module| !module.starts_with("sorteo/service"), has_word(sockets));
    let outside = &["net", "mio", "socket2", "fs", "Instant", "SystemTime", "thread", "log"];
    assert_absent("I/O and clocks", |module| !module.starts_with("protocol"), has_word(outside));
    assert_absent("unsafe code", |_| false, has_word(&["unsafe"]));
    let encoders = &["encode_reply", "append_payload", "winner_line", "to_be_bytes"];
    assert_absent("bytes of the wire", |module| !module.starts_with("sorteo/service"), has_word(encoders));
    let is_of = |module: &ModulePath, path: &str| module.join("/").starts_with(path);
    let mut arrows = Program::read(root()).arrows();
    arrows.retain(|(from, to)| is_of(from, "sorteo/store") && is_of(to, "protocol/wire"));
    assert_eq!(arrows, BTreeSet::new(), "wire types in the store");
}

/// A program of a few files, and the arrows that a rule of three modules forbids in it.
fn broken(files: &[(&str, &str)]) -> BTreeSet<String> {
    broken_by(files).0
}

fn broken_by(files: &[(&str, &str)]) -> (BTreeSet<String>, Vec<String>) {
    let rule = Rule::read("\n```imports\nserver → service\nservice → store\nstore →\n```\n");
    let module = |path: &str| path.split('/').map(str::to_owned).collect();
    let always =
        ["sorteo", "sorteo/server", "sorteo/service", "sorteo/store"].map(|path| (path, "pub struct Base;"));
    let all = always.iter().chain(files).map(|(path, text)| (module(path), Source::read(text)));
    let arrows = Program { modules: all.collect() }.arrows();
    (rule.broken_by(&arrows), circles(&arrows))
}

#[test]
fn a_planted_arrow_is_found_however_it_is_written() {
    let up = BTreeSet::from(["sorteo/service → sorteo/server".to_owned()]);
    for text in [
        "use crate::server::Base;",
        "use crate::{store::Base, server::{self, Base as Other}};",
        "use super::server;",
        "fn f() -> crate::server::Base { todo!() }",
        "mod inner { use super::super::server::Base; }",
    ] {
        assert_eq!(broken(&[("sorteo/service", text)]), up, "{text}");
    }
    for text in [
        "use crate::store::Base;",
        "// use crate::server::Base;",
        "/// [`Base`](crate::server::Base)\nconst A: &str = \"crate::server::Base\"; const B: char = '\"';",
        "#[cfg(test)]\nmod tests { use crate::server::Base; fn f() {} }",
        "use std::server::Base;",
    ] {
        assert_eq!(broken(&[("sorteo/service", text)]), BTreeSet::new(), "{text}");
    }
}

#[test]
fn a_name_is_followed_to_the_file_that_defines_it() {
    let parent = (
        "sorteo/store",
        "mod child; mod other; pub use self::other::Thing; pub struct Base; fn f(_: child::Child) {}",
    );
    let other = ("sorteo/store/other", "pub struct Thing;");
    let re_exported = ("sorteo/store/child", "use super::Thing; pub struct Child;");
    assert_eq!(broken_by(&[parent, other, re_exported]).1, [""; 0]);
    let defined_in_the_parent = ("sorteo/store/child", "use super::Base; pub struct Child;");
    let circle = ["sorteo/store → sorteo/store/child", "sorteo/store/child → sorteo/store"];
    assert_eq!(broken_by(&[parent, other, defined_in_the_parent]).1, circle);
}
