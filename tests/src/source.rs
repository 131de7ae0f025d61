//! This repository's own text, as the rules test looks at it: files, code without comments, code without tests.

use std::path::{Path, PathBuf};

/// Directories that hold no source of ours.
const SKIPPED: [&str; 3] = [".git", "target", "node_modules"];

/// A text file of the repository.
pub struct File {
    /// Its path from the root, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// Returns the root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Returns every text file below a directory of the repository, sorted by path; files that are not UTF-8 are left out.
#[must_use]
pub fn files_under(directory: &str) -> Vec<File> {
    let mut files = Vec::new();
    collect(&root().join(directory), &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn collect(directory: &Path, files: &mut Vec<File>) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            if !SKIPPED.iter().any(|skipped| name == *skipped) {
                collect(&path, files);
            }
        } else if kind.is_file()
            && let Ok(text) = std::fs::read_to_string(&path)
        {
            let path = path.strip_prefix(root()).unwrap_or(&path);
            files.push(File {
                path: path.to_string_lossy().replace('\\', "/"),
                text,
            });
        }
    }
}

impl File {
    /// Tells whether this is Rust source.
    #[must_use]
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Tells whether the whole file is test code.
    #[must_use]
    pub fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs")
            || self.path.ends_with("_tests.rs")
            || self.path.split('/').any(|part| part == "tests") && !self.path.starts_with("tests/")
    }

    /// Returns the code: comments, strings and characters blanked out, line breaks kept.
    #[must_use]
    pub fn code(&self) -> String {
        blank(&self.text)
    }

    /// Returns the code without what only tests have, blanked out in the same way.
    #[must_use]
    pub fn code_without_tests(&self) -> String {
        without_tests(&self.code())
    }

    /// Counts the lines of code: neither blank, nor comment, nor unit test.
    #[must_use]
    pub fn lines_of_code(&self) -> usize {
        self.code_without_tests()
            .lines()
            .filter(|line| !line.trim().is_empty())
            .count()
    }

    /// Counts the lines that are not unit tests.
    #[must_use]
    pub fn lines_without_tests(&self) -> usize {
        let code = self.code();
        let tests: usize = test_items(&code)
            .into_iter()
            .map(|(start, end)| end - start + 1)
            .sum();
        self.text.lines().count() - tests
    }
}

/// Returns the paths of the files that are modules of tests only: `#[cfg(test)] mod fake;` and its like.
#[must_use]
pub fn test_only(files: &[File]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let directory = module_directory(&file.path);
        let mut attribute = false;
        for line in file.code().lines().map(str::trim) {
            if let Some(name) = line
                .strip_prefix("mod ")
                .and_then(|rest| rest.strip_suffix(';'))
                && attribute
            {
                found.push(format!("{directory}/{name}.rs"));
            }
            attribute = line.starts_with("#[cfg(") && has_word(line, "test");
        }
    }
    found
}

/// Returns the directory in which a file's modules are.
#[must_use]
pub fn module_directory(path: &str) -> &str {
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    match path.rsplit('/').next() {
        Some("mod.rs" | "lib.rs" | "main.rs") => parent,
        _ => path.strip_suffix(".rs").unwrap_or(path),
    }
}

/// Finds a word in code: not part of a longer identifier.
#[must_use]
pub fn has_word(line: &str, word: &str) -> bool {
    let identifier = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        // A lifetime is no word: `&'static mut T` is not `static mut`.
        !before.is_some_and(|c| (identifier(c) || c == '\'') && starts_with_identifier(word))
            && !after.is_some_and(|c| identifier(c) && ends_with_identifier(word))
    })
}

fn starts_with_identifier(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

fn ends_with_identifier(word: &str) -> bool {
    word.ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// What the scanner is in the middle of.
enum State {
    Code,
    LineComment,
    BlockComment(u32),
    Text,
    RawText(usize),
}

/// Replaces what is not code by spaces.
fn blank(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut state = State::Code;
    let mut at = 0;
    while at < characters.len() {
        let c = characters[at];
        let next = characters.get(at + 1).copied().unwrap_or(' ');
        let mut length = 1;
        let mut kept = false;
        match state {
            State::Code => match (c, next) {
                ('/', '/') => state = State::LineComment,
                ('/', '*') => state = State::BlockComment(1),
                ('"', _) => state = State::Text,
                ('r', '"' | '#') if raw_hashes(&characters, at).is_some() => {
                    let hashes = raw_hashes(&characters, at).unwrap_or(0);
                    length = hashes + 2;
                    state = State::RawText(hashes);
                }
                ('\'', _) => match character_literal(&characters, at) {
                    Some(found) => length = found,
                    None => kept = true,
                },
                _ => kept = true,
            },
            State::LineComment if c == '\n' => state = State::Code,
            State::LineComment => {}
            State::BlockComment(depth) => match (c, next) {
                ('*', '/') if depth == 1 => (state, length) = (State::Code, 2),
                ('*', '/') => (state, length) = (State::BlockComment(depth - 1), 2),
                ('/', '*') => (state, length) = (State::BlockComment(depth + 1), 2),
                _ => {}
            },
            State::Text => match c {
                '\\' => length = 2,
                '"' => state = State::Code,
                _ => {}
            },
            State::RawText(hashes) => {
                if c == '"' && (1..=hashes).all(|i| characters.get(at + i) == Some(&'#')) {
                    length = hashes + 1;
                    state = State::Code;
                }
            }
        }
        for &c in characters.iter().skip(at).take(length) {
            out.push(if c == '\n' || kept { c } else { ' ' });
        }
        at += length;
    }
    out
}

/// Returns the number of `#` of a raw string that starts here.
fn raw_hashes(characters: &[char], at: usize) -> Option<usize> {
    let before = at.checked_sub(1).and_then(|i| characters.get(i));
    if before.is_some_and(|c| c.is_alphanumeric() && *c != 'b' || *c == '_') {
        return None;
    }
    let hashes = characters[at + 1..]
        .iter()
        .take_while(|&&c| c == '#')
        .count();
    (characters.get(at + 1 + hashes) == Some(&'"')).then_some(hashes)
}

/// Returns the length of a character literal that starts here; `None` for a lifetime.
fn character_literal(characters: &[char], at: usize) -> Option<usize> {
    if characters.get(at + 1) == Some(&'\\') {
        let end = characters[at + 3..]
            .iter()
            .take(12)
            .position(|&c| c == '\'')?;
        return Some(end + 4);
    }
    (characters.get(at + 2) == Some(&'\'')).then_some(3)
}

/// Returns the first and last line, from zero, of every item under `#[cfg(test)]`, as rustfmt lays it out.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        if !(trimmed.starts_with("#[cfg(test)]") || trimmed.starts_with("#[cfg(all(test")) {
            continue;
        }
        let indent = line.len() - trimmed.len();
        let Some(head) = (at + 1..lines.len()).find(|&i| !lines[i].trim_start().starts_with("#["))
        else {
            continue;
        };
        let closing = [
            format!("{}}}", " ".repeat(indent)),
            format!("{}}};", " ".repeat(indent)),
        ];
        let end = if lines[head].trim_end().ends_with([';', '}', ',']) {
            Some(head)
        } else {
            (head..lines.len()).find(|&i| closing.iter().any(|end| lines[i].trim_end() == end))
        };
        found.push((at, end.unwrap_or(lines.len() - 1)));
    }
    found
}

fn without_tests(code: &str) -> String {
    let modules = test_items(code);
    let inside = |at: usize| {
        modules
            .iter()
            .any(|&(start, end)| (start..=end).contains(&at))
    };
    code.lines()
        .enumerate()
        .map(|(at, line)| if inside(at) { "" } else { line })
        .collect::<Vec<_>>()
        .join("\n")
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
    fn comments_and_strings_are_not_code() {
        let text = "let a = \"unsafe\"; // unsafe\n/* unsafe /* x */ unsafe */ let b = r#\"unsafe \" \"#;\nlet c = '\"'; unsafe {}";
        let code = file("a.rs", text).code();
        let lines: Vec<bool> = code.lines().map(|line| has_word(line, "unsafe")).collect();
        assert_eq!(lines, [false, false, true]);
    }

    #[test]
    fn lifetimes_are_code_and_characters_are_not() {
        let code = file(
            "a.rs",
            "fn f<'a>(x: &'a str) { g('\\u{1f}', 'x', '\\''); h }",
        )
        .code();
        assert!(code.contains("<'a>") && code.contains("&'a str") && !code.contains("'x'"));
        assert!(code.ends_with("h }"));
    }

    #[test]
    fn words_are_whole_identifiers() {
        assert!(has_word("unsafe { x }", "unsafe"));
        assert!(!has_word("#![forbid(unsafe_code)]", "unsafe"));
        assert!(has_word("core::arch::asm!(x)", "asm!"));
        assert!(!has_word("global_asm!(x)", "asm!"));
        assert!(!has_word("x: &'static mut T", "static mut"));
    }

    #[test]
    fn modules_of_tests_are_found_where_they_are() {
        let files = [
            file("a/src/lib.rs", "mod x;\n#[cfg(test)]\nmod fake;\nmod y;\n"),
            file("a/src/cell.rs", "#[cfg(all(loom, test))]\nmod model;\n"),
        ];
        assert_eq!(test_only(&files), ["a/src/fake.rs", "a/src/cell/model.rs"]);
    }

    #[test]
    fn unit_tests_are_left_out_of_the_count() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    unsafe {}\n}\nfn b() {}\n";
        let file = file("a.rs", text);
        assert_eq!(file.lines_without_tests(), 2);
        assert!(!has_word(&file.code_without_tests(), "unsafe"));
        assert!(file.code_without_tests().contains("fn b"));
    }
}
