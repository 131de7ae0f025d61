//! What the documents name is there: files, and the items of our own code.

use super::{OURS, rust, verdict};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tests::source::{File, files_under, root};

/// Returns the documents: those at the top level and those of our folders.
fn documents() -> Vec<File> {
    let mut documents = files_under("");
    documents.retain(|file| {
        let top = file.path.split('/').next().unwrap_or("");
        let is_ours = top == file.path || top == "docs" || OURS.contains(&top);
        file.path.ends_with(".md") && is_ours
    });
    documents
}

/// Returns what stands in backticks in a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Returns where the links of a line lead, without those to other hosts and within the page.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', '#']).next())
        .filter(|target| !target.is_empty() && !target.contains("://"))
}

/// Tells whether a word is the path of a file that is committed, with no part that stands for others.
fn is_path(word: &str) -> bool {
    let is_file = word.ends_with(".rs")
        || word.contains('/') && [".md", ".ld"].iter().any(|end| word.ends_with(end));
    is_file
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte))
}

/// Returns the item that a word names: the last part of a path of Rust's, or a word of three parts and more, as tests have.
fn item(word: &str) -> Option<&str> {
    let word = word.strip_suffix("()").unwrap_or(word);
    let is_name = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if !word.split("::").all(is_name) {
        return None;
    }
    let (_, last) = word.rsplit_once("::").unwrap_or(("", word));
    let is_long = last.matches('_').count() >= 2 && last == last.to_lowercase();
    (last != word || is_long).then_some(last)
}

/// Tells whether a path has a part that stands for others, as in `boards/src/NAME.rs`.
fn is_pattern(word: &str) -> bool {
    word.contains('/') && word.contains("NAME")
}

/// Finds what a document names: from the root, without `hypervisor` before it, or beside the document or what was named before.
fn find(word: &str, places: [&Path; 2]) -> Option<PathBuf> {
    ["", "hypervisor"]
        .into_iter()
        .map(Path::new)
        .chain(places)
        .map(|folder| folder.join(word))
        .find(|path| root().join(path).exists())
}

/// Returns what a document names and is not there, with its line.
fn missing(document: &File, words: &BTreeSet<&str>) -> Vec<String> {
    let folder = Path::new(&document.path).parent().unwrap_or(Path::new(""));
    let mut broken = Vec::new();
    // Where a file without a folder is: beside the one before, unless that one stood for others.
    let mut before = Some(folder.to_owned());
    for (number, line) in document.text.lines().enumerate() {
        let mut miss =
            |what: &str| broken.push(format!("{}:{}: {what}", document.path, number + 1));
        for word in quoted(line) {
            if is_pattern(word) {
                before = None;
            } else if word.ends_with('/') {
                before = find(word, [folder, folder]).or(before);
            } else if is_path(word) {
                match find(word, [folder, before.as_deref().unwrap_or(folder)]) {
                    Some(path) => before = path.parent().map(Path::to_owned),
                    None if before.is_none() && !word.contains('/') => {}
                    None => miss(word),
                }
            } else if item(word).is_some_and(|name| !words.contains(name)) {
                miss(word);
            }
        }
        for target in links(line).filter(|target| !root().join(folder).join(target).exists()) {
            miss(target);
        }
    }
    broken
}

#[test]
fn what_documents_name_is_there() {
    let files = rust(&OURS);
    let words: BTreeSet<&str> = files
        .iter()
        .flat_map(|file| {
            file.text
                .split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        })
        .collect();
    let documents = documents();
    let broken: Vec<String> = documents
        .iter()
        .flat_map(|document| missing(document, &words))
        .collect();
    verdict("A file or an item that a document names is there", &broken);
}

#[test]
fn words_of_documents_are_told_apart() {
    assert!(is_path("el2/hot.rs") && is_path("docs/cpu-time.md"));
    assert!(!is_path("README.md") && !is_path("target/<x>.rs"));
    assert!(is_pattern("boards/src/NAME.rs") && !is_pattern("docs/README.md"));
    assert_eq!(item("PowerCell::cpu_on"), Some("cpu_on"));
    assert_eq!(
        item("files_hold_one_concept_each"),
        Some("files_hold_one_concept_each")
    );
    assert_eq!((item("vcpu list"), item("cpu_on")), (None, None));
    assert_eq!(
        links("[a](b.md#c), [d](https://e)").collect::<Vec<_>>(),
        ["b.md"]
    );
}
