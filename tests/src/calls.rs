//! Public functions and their callers, as the rules test looks for them: by name, in code laid out by rustfmt.
//!
//! A compiler knows better, but takes everything public in a library for used. A name that two types share hides one behind the
//! other if both take `self`; functions without `self` are told apart by their type.

use crate::source::{File, has_word};

/// A public function, where it is defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The type in whose `impl` it stands.
    pub owner: Option<String>,
    /// Whether it takes `self`.
    pub method: bool,
    /// Its first and its last line, from zero.
    pub lines: (usize, usize),
}

/// Production code of a file: no comments, strings, unit tests or `use`.
pub struct Code {
    path: String,
    lines: Vec<String>,
}

impl Code {
    /// Takes the production code out of a file.
    #[must_use]
    pub fn of(file: &File) -> Self {
        let code = file.code_without_tests();
        let mut lines = Vec::new();
        let mut import = false;
        for line in code.lines() {
            let trimmed = line.trim_start();
            import |= trimmed.starts_with("use ") || trimmed.starts_with("pub use ");
            lines.push(if import { String::new() } else { line.into() });
            import &= !trimmed.ends_with(';');
        }
        Self {
            path: file.path.clone(),
            lines,
        }
    }

    /// Returns the functions that other crates may call, in the order in which they stand.
    fn public_functions(&self) -> Vec<Function> {
        let mut owner = None;
        let mut found = Vec::new();
        for (at, line) in self.lines.iter().enumerate() {
            if line.starts_with("impl") {
                owner = implemented(line);
            } else if line.starts_with('}') {
                owner = None;
            }
            let trimmed = line.trim_start();
            let Some(name) = trimmed
                .strip_prefix("pub ")
                .and_then(|rest| rest.split_once("fn "))
                .filter(|(words, _)| words.split(' ').all(|word| QUALIFIERS.contains(&word)))
                .map(|(_, rest)| identifier(rest))
            else {
                continue;
            };
            let indent = " ".repeat(line.len() - trimmed.len());
            // rustfmt leaves an empty body on the line of its signature.
            let (closing, empty) = (format!("{indent}}}"), format!("{indent})"));
            let is_end = |line: &str| {
                let line = line.trim_end();
                line == closing || line.starts_with(&empty) && line.ends_with("{}")
            };
            let end = if line.trim_end().ends_with("{}") {
                at
            } else {
                (at..self.lines.len())
                    .find(|&i| is_end(&self.lines[i]))
                    .unwrap_or(at)
            };
            let body = (at..=end).find(|&i| self.lines[i].trim_end().ends_with('{'));
            let method = (at..=body.unwrap_or(end)).any(|i| has_word(&self.lines[i], "self"));
            found.push(Function {
                name: name.into(),
                owner: owner.clone(),
                method,
                lines: (at, end),
            });
        }
        found
    }

    /// Tells whether a line outside of `own` calls a function or takes its address.
    fn calls(&self, function: &Function, own: Option<(usize, usize)>) -> bool {
        self.lines.iter().enumerate().any(|(number, line)| {
            if own.is_some_and(|(start, end)| (start..=end).contains(&number)) {
                return false;
            }
            line.match_indices(&function.name).any(|(at, name)| {
                let (before, after) = (&line[..at], &line[at + name.len()..]);
                let whole = !after.starts_with(is_identifier) && !before.ends_with(is_identifier);
                whole && !before.ends_with("fn ") && function.is_meant(before, after)
            })
        })
    }
}

impl Function {
    /// Tells whether the name of this function, between two pieces of code, means this function.
    fn is_meant(&self, before: &str, after: &str) -> bool {
        if self.method && before.ends_with('.') {
            return true;
        }
        let Some(owner) = &self.owner else {
            let value = before.ends_with('(') && after.starts_with(')')
                || before.ends_with(", ") && after.starts_with([')', ','])
                || before.trim().is_empty() && after.starts_with(',');
            return !before.ends_with('.')
                && (after.starts_with(['(', ':']) && !after.starts_with(": ")
                    || before.ends_with("::")
                    || value);
        };
        before.strip_suffix("::").is_some_and(|path| {
            let path = path
                .split_once('<')
                .map_or(path, |_| path.trim_end_matches(|c| c != '<'));
            path.ends_with(owner.as_str()) || path.ends_with("Self") || path.ends_with('<')
        })
    }
}

/// What may stand between `pub` and `fn`.
const QUALIFIERS: [&str; 4] = ["", "const", "unsafe", "async"];

fn is_identifier(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn identifier(text: &str) -> &str {
    text.split(|c| !is_identifier(c)).next().unwrap_or(text)
}

/// Returns the name of the type of an `impl`, without its path and parameters.
fn implemented(line: &str) -> Option<String> {
    let mut rest = line.strip_prefix("impl")?;
    if rest.starts_with('<') {
        let mut depth = 0;
        let end = rest.char_indices().find(|&(at, c)| {
            depth += i32::from(c == '<');
            depth -= i32::from(c == '>' && !rest[..at].ends_with('-'));
            depth == 0
        })?;
        rest = &rest[end.0 + 1..];
    }
    let rest = rest.split_once(" for ").map_or(rest, |(_, rest)| rest);
    let path = rest.trim_start().split(['<', ' ', '{']).next()?;
    path.rsplit("::").next().map(str::to_owned)
}

/// Returns the public functions of some rooms that no production code calls, each with the file it is in; what only such
/// functions call is among them. A file's function that is `excused` counts as called.
#[must_use]
pub fn uncalled(
    mut code: Vec<Code>,
    rooms: &[&str],
    excused: impl Fn(&str, &str) -> bool,
) -> Vec<(String, Function)> {
    let mut found: Vec<(String, Function)> = Vec::new();
    loop {
        let mut more = Vec::new();
        for (index, file) in code.iter().enumerate() {
            let ours = rooms.iter().any(|room| file.path.starts_with(room));
            if !ours {
                continue;
            }
            for function in file.public_functions() {
                let called = code.iter().enumerate().any(|(other, file)| {
                    file.calls(&function, (other == index).then_some(function.lines))
                });
                if !called && !excused(&file.path, &function.name) {
                    more.push((index, function));
                }
            }
        }
        if more.is_empty() {
            return found;
        }
        for (index, function) in more {
            for line in &mut code[index].lines[function.lines.0..=function.lines.1] {
                line.clear();
            }
            found.push((code[index].path.clone(), function));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let file = File {
            path: "room/src/a.rs".into(),
            text: text.into(),
        };
        uncalled(vec![Code::of(&file)], &["room/"], |_, name| name == "later")
            .into_iter()
            .map(|(_, function)| function.name)
            .collect()
    }

    #[test]
    fn callers_are_told_from_namesakes() {
        let text = "
impl<'a, T: Into<A>> From<T> for B<'a> {
    pub const fn new() -> Self {
        other()
    }
    pub fn read(
        &self,
    ) -> u8 {
        A::new()
    }
}
pub fn other() {}
pub fn used(read: u8) {}
pub fn later() {}
fn main() {
    list.map(used);
    object.read();
}
";
        assert_eq!(names(text), ["new", "other"]);
    }

    #[test]
    fn tests_imports_and_the_function_itself_are_no_callers() {
        let text = "
pub use b::one;
pub fn one() {
    one()
}
pub fn two() {}
#[cfg(test)]
pub fn three() {
    two()
}
#[cfg(test)]
mod tests {
    fn four() {
        two()
    }
}
";
        assert_eq!(names(text), ["one", "two"]);
    }
}
