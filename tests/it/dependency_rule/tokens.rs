//! What the text of one Rust file imports, names and defines.

use std::collections::BTreeSet;

/// One path of a `use`, and the name that it gives: `*` if it imports all.
#[derive(Debug, PartialEq, Eq)]
pub struct Import {
    pub is_public: bool,
    pub path: Vec<String>,
    pub name: String,
}

/// One file, without its comments and its tests.
#[derive(Debug, Default)]
pub struct Source {
    pub imports: Vec<Import>,
    /// Every path of two or more names that is not in a `use`.
    pub paths: Vec<Vec<String>>,
    /// The items that it defines, but not those inside of others.
    pub defined: BTreeSet<String>,
    pub exported_macros: BTreeSet<String>,
    /// Every name in the code.
    pub words: BTreeSet<String>,
    /// The texts of its string literals.
    pub strings: Vec<String>,
}

impl Source {
    pub fn read(text: &str) -> Self {
        let mut source = Self::default();
        let tokens = without_tests(tokens(text, &mut source.strings));
        source.words = tokens.iter().filter(|token| is_word(token)).map(|word| (*word).to_owned()).collect();
        let mut depth = 0;
        // How deep the modules lie that are written inside of this file.
        let mut inner = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            match tokens[at] {
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    inner.pop_if(|inner| *inner > depth);
                }
                "mod" if tokens.get(at + 2) == Some(&"{") => inner.push(depth + 1),
                "use" if !matches!(tokens.get(at + 1), Some(&"<")) => {
                    let end = at + tokens[at..].iter().position(|token| *token == ";").unwrap_or(0);
                    let is_public = tokens[..at].last() == Some(&"pub") || tokens[..at].ends_with(&[")"]);
                    let mut paths = Vec::new();
                    expand(&tokens[at + 1..end], &[], &mut paths);
                    for (path, name) in paths {
                        source.imports.push(Import {
                            is_public,
                            path: of_the_file(path, !inner.is_empty()),
                            name,
                        });
                    }
                    at = end;
                }
                "macro_rules" => {
                    let name = tokens[at + 2].to_owned();
                    if tokens[..at].ends_with(&["#", "[", "macro_export", "]"]) {
                        source.exported_macros.insert(name.clone());
                    }
                    source.defined.insert(name);
                }
                "struct" | "enum" | "union" | "trait" | "type" | "fn" | "const" | "static" if depth == 0 => {
                    source.defined.insert(tokens[at + 1].to_owned());
                }
                word if is_word(word) && tokens.get(at + 1) == Some(&"::") => {
                    let mut path = vec![word.to_owned()];
                    while tokens.get(at + 1) == Some(&"::")
                        && tokens.get(at + 2).is_some_and(|next| is_word(next))
                    {
                        path.push(tokens[at + 2].to_owned());
                        at += 2;
                    }
                    source.paths.push(of_the_file(path, !inner.is_empty()));
                }
                _ => {}
            }
            at += 1;
        }
        source.paths.retain(|path| path.len() > 1);
        source
    }
}

/// What a module inside of the file calls `super` is the file.
fn of_the_file(mut path: Vec<String>, is_inner: bool) -> Vec<String> {
    if is_inner && path[0] == "super" {
        "self".clone_into(&mut path[0]);
    }
    path
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Splits a text into names, `::` and other signs; skips comments, and takes out strings.
fn tokens<'a>(text: &'a str, strings: &mut Vec<String>) -> Vec<&'a str> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = string_bytes(rest) {
            strings
                .push(rest[..length].trim_start_matches(['b', 'r', '#']).trim_matches(['"', '#']).to_owned());
            length
        } else if first == '\'' {
            char_bytes(rest)
        } else {
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let length = if word > 0 {
                word
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            if !first.is_whitespace() {
                tokens.push(&rest[..length]);
            }
            length
        };
        rest = &rest[length..];
    }
    tokens
}

/// The length of a string literal, plain or raw, that the text begins with.
fn string_bytes(text: &str) -> Option<usize> {
    let prefix = text.find(|c| c != 'b' && c != 'r').filter(|prefix| *prefix <= 2)?;
    let (is_raw, rest) = (text[..prefix].contains('r'), &text[prefix..]);
    let hashes = if is_raw { rest.find(|c| c != '#')? } else { 0 };
    let body = rest[hashes..].strip_prefix('"')?;
    let end = if is_raw {
        body.find(&format!("\"{}", "#".repeat(hashes)))? + hashes
    } else {
        let mut escaped = false;
        body.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })?
    };
    Some(prefix + hashes + 1 + end + 1)
}

/// The length of a character literal, or of the sign of a lifetime, that the text begins with.
fn char_bytes(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => text[3..].find('\'').map_or(1, |end| end + 4),
        (_, Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// Drops each item behind `#[cfg(test)]`.
fn without_tests(tokens: Vec<&str>) -> Vec<&str> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at..].starts_with(&MARK) {
            let mut depth = 0;
            at += 1 + tokens[at..]
                .iter()
                .position(|token| {
                    depth += i32::from(*token == "{") - i32::from(*token == "}");
                    depth == 0 && matches!(*token, ";" | "}")
                })
                .expect("an item has an end");
        } else {
            kept.push(tokens[at]);
            at += 1;
        }
    }
    kept
}

/// The paths of a tree of `use`, each with the name that it gives.
fn expand(tree: &[&str], before: &[String], paths: &mut Vec<(Vec<String>, String)>) {
    let named = |token: &&&str| is_word(token) || **token == "*";
    let Some(open) = tree.iter().position(|token| *token == "{") else {
        let (path, alias) = match tree.iter().position(|token| *token == "as") {
            Some(at) => (&tree[..at], tree.get(at + 1)),
            None => (tree, None),
        };
        let mut path: Vec<_> =
            before.iter().cloned().chain(path.iter().filter(named).map(|name| (*name).to_owned())).collect();
        if path.len() > 1 {
            path.pop_if(|last| last == "self");
        }
        if let Some(last) = path.last() {
            let name = alias.map_or_else(|| last.clone(), |alias| (*alias).to_owned());
            paths.push((path, name));
        }
        return;
    };
    let before: Vec<_> = before
        .iter()
        .cloned()
        .chain(tree[..open].iter().filter(named).map(|name| (*name).to_owned()))
        .collect();
    let inside = &tree[open + 1..tree.len() - 1];
    let mut depth = 0;
    for part in inside.split(|token| {
        depth += i32::from(*token == "{") - i32::from(*token == "}");
        *token == "," && depth == 0
    }) {
        // A comma behind the last name is followed by nothing.
        if !part.is_empty() {
            expand(part, &before, paths);
        }
    }
}
