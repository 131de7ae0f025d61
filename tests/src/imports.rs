//! Which files of a crate use what other files define, as the rules test looks for it: by path, in code laid out by rustfmt.
//!
//! An edge leads to the file in which a name is *defined*: a parent that passes a child's name on is no stop on the way. Methods are
//! not seen, since they are called without a path.

use crate::source::{File, module_directory};
use std::collections::{BTreeMap, BTreeSet};

/// A path that a file names, with the line (from zero) on which it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The line.
    pub line: usize,
    /// Its segments, without an alias.
    pub path: Vec<String>,
    /// The name it has in the file, if it is imported.
    pub alias: Option<String>,
    /// Whether it is imported for others too.
    pub public: bool,
}

/// Returns every path that production code of a file names: each leaf of its imports, and each path in the code.
#[must_use]
pub fn named(file: &File) -> Vec<Named> {
    let code = file.code_without_tests();
    let mut found = Vec::new();
    let mut import: Option<(usize, String)> = None;
    for (line, text) in code.lines().enumerate() {
        let trimmed = text.trim();
        if import.is_none() && is_import(trimmed) {
            import = Some((line, String::new()));
        }
        let Some((start, tree)) = &mut import else {
            found.extend(paths_in(text).into_iter().map(|path| Named {
                line,
                path,
                alias: None,
                public: false,
            }));
            continue;
        };
        tree.push_str(trimmed);
        tree.push(' ');
        if trimmed.ends_with(';') {
            let public = tree.starts_with("pub");
            let tree = tree
                .split_once("use ")
                .map_or("", |(_, tree)| tree)
                .trim_end_matches("; ");
            leaves(tree, &[], *start, public, &mut found);
            import = None;
        }
    }
    found
}

fn is_import(line: &str) -> bool {
    let rest = line.strip_prefix("pub").map_or(line, |rest| {
        rest.trim_start_matches(|c: char| c == '(' || c == ')' || c.is_alphabetic())
            .trim_start()
    });
    line.starts_with("use ")
        || line.starts_with("pub")
            && (rest.starts_with("use ") || line.contains(") use ") || line.starts_with("pub use "))
}

fn is_identifier(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Returns the paths of at least two segments in a line of code.
fn paths_in(line: &str) -> Vec<Vec<String>> {
    line.split(|c: char| !is_identifier(c) && c != ':')
        .map(|word| word.split("::").map(str::to_owned).collect::<Vec<_>>())
        .filter(|path| path.len() > 1 && path.iter().all(|part| !part.contains(':')))
        .map(|path| path.into_iter().filter(|part| !part.is_empty()).collect())
        .collect()
}

/// Adds the leaves of a `use` tree.
fn leaves(tree: &str, before: &[String], line: usize, public: bool, found: &mut Vec<Named>) {
    let tree = tree.trim();
    if let Some((prefix, inner)) = tree.split_once('{') {
        let segments = prefix
            .split("::")
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let before: Vec<String> = before
            .iter()
            .cloned()
            .chain(segments.map(str::to_owned))
            .collect();
        let inner = inner.rsplit_once('}').map_or(inner, |(inner, _)| inner);
        for part in parts(inner) {
            leaves(part, &before, line, public, found);
        }
        return;
    }
    let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
    let mut path: Vec<String> = before
        .iter()
        .cloned()
        .chain(path.split("::").map(|part| part.trim().to_owned()))
        .collect();
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let alias = if alias.is_empty() {
        path.last().cloned()
    } else {
        Some(alias.trim().to_owned())
    };
    found.push(Named {
        line,
        path,
        alias,
        public,
    });
}

/// Splits the inside of braces at the commas that are in no inner braces.
fn parts(inner: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&inner[start..]);
    found.retain(|part| !part.trim().is_empty());
    found
}

/// The files of one crate, as modules.
pub struct Crate<'a> {
    files: Vec<(&'a File, Vec<Named>)>,
    /// Module path (without `crate`) to the place of its file.
    modules: BTreeMap<Vec<String>, usize>,
    root: &'a str,
}

impl<'a> Crate<'a> {
    /// Takes the production files of the crate whose root module is in this directory.
    #[must_use]
    pub fn new(root: &'a str, files: &'a [File]) -> Self {
        let mut of = Self {
            files: Vec::new(),
            modules: BTreeMap::new(),
            root,
        };
        for file in files.iter().filter(|file| file.path.starts_with(root)) {
            let place = of.files.len();
            of.modules.insert(of.module(&file.path), place);
            of.files.push((file, named(file)));
        }
        of
    }

    /// Returns the module path of a file.
    fn module(&self, path: &str) -> Vec<String> {
        let own = module_directory(path);
        own.strip_prefix(self.root.trim_end_matches('/'))
            .unwrap_or(own)
            .split('/')
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// Returns which file uses which: pairs of files, each with the first line and path that says so.
    #[must_use]
    pub fn edges(&self) -> BTreeMap<(usize, usize), String> {
        let mut edges = BTreeMap::new();
        for (from, (file, names)) in self.files.iter().enumerate() {
            for name in names {
                if let Some(to) = self.definition(from, &name.path, 0)
                    && to != from
                {
                    edges.entry((from, to)).or_insert_with(|| {
                        format!("{}:{}: {}", file.path, name.line + 1, name.path.join("::"))
                    });
                }
            }
        }
        edges
    }

    /// Returns the path of a file.
    #[must_use]
    pub fn path(&self, file: usize) -> &str {
        &self.files[file].0.path
    }

    /// Finds the file that defines what a path named in a file leads to; `None` for other crates, modules and what is no path.
    fn definition(&self, from: usize, path: &[String], depth: u32) -> Option<usize> {
        let own = self.module(&self.files[from].0.path);
        let (first, rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => Vec::new(),
            "self" => own,
            "super" => own[..own.len().checked_sub(1)?].to_vec(),
            name => {
                let mut child = own;
                child.push(name.to_owned());
                if !self.modules.contains_key(&child) {
                    return self.imported(from, name, rest, depth);
                }
                child
            }
        };
        let mut rest = rest.iter();
        for part in rest.by_ref() {
            if part == "super" {
                at.pop();
                continue;
            }
            at.push(part.clone());
            if !self.modules.contains_key(&at) {
                at.pop();
                let file = *self.modules.get(&at)?;
                // Passed on by that file, or defined there.
                return self.imported(file, part, &[], depth).or(Some(file));
            }
        }
        None
    }

    /// Follows a name that a file imports.
    fn imported(&self, file: usize, name: &str, rest: &[String], depth: u32) -> Option<usize> {
        let import = self.files[file]
            .1
            .iter()
            .find(|named| named.alias.as_deref() == Some(name))?;
        let path: Vec<String> = import.path.iter().chain(rest).cloned().collect();
        (depth < 8 && path.first().is_some_and(|first| first != name))
            .then(|| self.definition(file, &path, depth + 1))?
    }
}

/// Returns the groups of nodes that can all reach each other, each of at least two.
#[must_use]
pub fn circles<N: Ord + Copy>(edges: impl Iterator<Item = (N, N)>) -> Vec<BTreeSet<N>> {
    let mut reach: BTreeMap<N, BTreeSet<N>> = BTreeMap::new();
    for (from, to) in edges {
        reach.entry(from).or_default().insert(to);
    }
    loop {
        let more: Vec<(N, N)> = reach
            .iter()
            .flat_map(|(&from, to)| {
                to.iter()
                    .filter_map(|to| reach.get(to))
                    .flatten()
                    .map(move |&to| (from, to))
            })
            .filter(|(from, to)| !reach[from].contains(to))
            .collect();
        if more.is_empty() {
            break;
        }
        for (from, to) in more {
            reach.entry(from).or_default().insert(to);
        }
    }
    let mut found = Vec::new();
    let mut done = BTreeSet::new();
    for (&node, to) in reach.iter().filter(|(node, to)| to.contains(node)) {
        if done.insert(node) {
            let back = |other: &&N| reach.get(other).is_some_and(|to| to.contains(&node));
            let group: BTreeSet<N> = to.iter().filter(back).copied().collect();
            done.extend(&group);
            if group.len() > 1 {
                found.push(group);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File {
            path: path.into(),
            text: text.into(),
        }
    }

    #[test]
    fn every_way_to_write_a_path_is_read() {
        let text =
            "use a::{b::{self, C as D}, e};\npub(crate) use f::g;\nfn x() { h::i::<J>(k); }\n";
        let found: Vec<(String, Option<String>, bool)> = named(&file("a.rs", text))
            .into_iter()
            .map(|named| (named.path.join("::"), named.alias, named.public))
            .collect();
        let row =
            |path: &str, alias: &str, public| (path.to_owned(), Some(alias.to_owned()), public);
        assert_eq!(
            found,
            [
                row("a::b", "b", false),
                row("a::b::C", "D", false),
                row("a::e", "e", false),
                row("f::g", "g", true),
                ("h::i".to_owned(), None, false),
            ]
        );
    }

    #[test]
    fn a_name_leads_to_the_file_that_defines_it() {
        let files = [
            file("c/main.rs", "mod a;\nmod b;\n"),
            file(
                "c/a.rs",
                "mod inner;\npub(crate) use inner::go;\nuse crate::b;\nfn x() { b::y(); }\n",
            ),
            file("c/a/inner.rs", "pub(crate) fn go() {}\n"),
            file("c/b.rs", "use crate::a;\nfn z() { a::go(); }\n"),
        ];
        let of = Crate::new("c/", &files);
        let edges = of.edges();
        let edges: Vec<(&str, &str)> = edges
            .keys()
            .map(|&(from, to)| (of.path(from), of.path(to)))
            .collect();
        assert_eq!(
            edges,
            [
                ("c/a.rs", "c/a/inner.rs"),
                ("c/a.rs", "c/b.rs"),
                ("c/b.rs", "c/a/inner.rs")
            ]
        );
    }

    #[test]
    fn circles_are_found_and_chains_are_not() {
        let edges = [(1, 2), (2, 3), (3, 2), (3, 4), (5, 6), (6, 7), (7, 5)];
        assert_eq!(
            circles(edges.into_iter()),
            [BTreeSet::from([2, 3]), BTreeSet::from([5, 6, 7])]
        );
    }
}
