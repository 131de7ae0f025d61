//! Plain words: the pronouns of people are for people, and not for vCPUs, locks and CPUs.

use super::rust;

/// Where comments are read.
const READ: [&str; 9] = [
    "boards",
    "hypervisor",
    "psci",
    "stage2",
    "tests/guests",
    "tests/src",
    "tests/tests",
    "vgic",
    "xtask",
];
/// The pronouns that English has for people alone.
const OF_PEOPLE: [&str; 8] = [
    "who",
    "whoever",
    "whom",
    "nobody",
    "somebody",
    "anybody",
    "everybody",
    "someone",
];
/// Most of them in 10,000 words of comments: what is said of operators, users and authors.
const MOST_IN_10_000: usize = 5;

/// Returns the words of a file's comments, in small letters.
fn words_of_comments(text: &str) -> impl Iterator<Item = String> {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix("//"))
        .flat_map(|comment| comment.split(|letter: char| !letter.is_alphanumeric()))
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

#[test]
fn pronouns_of_people_are_for_people() {
    let (mut all, mut found) = (0, Vec::new());
    for file in rust(&READ) {
        for word in words_of_comments(&file.text) {
            all += 1;
            if OF_PEOPLE.contains(&word.as_str()) {
                found.push(format!("{}: {word}", file.path));
            }
        }
    }
    assert!(all > 10_000, "{all} words of comments were read");
    assert!(
        found.len() * 10_000 <= all * MOST_IN_10_000,
        "{} in {all} words:\n{}",
        found.len(),
        found.join("\n")
    );
}

#[test]
fn words_are_counted_in_comments_only() {
    let text = "//! Who asks.\nlet who = 1;\n    // Nobody's, not whose.\n";
    let words: Vec<String> = words_of_comments(text).collect();
    assert_eq!(words, ["who", "asks", "nobody", "s", "not", "whose"]);
}
