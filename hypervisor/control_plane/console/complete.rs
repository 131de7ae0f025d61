//! Completion: what the word before the cursor may become, by the table of usages and the VMs' names.

use super::names::Names;
use super::usage::{Piece, USAGE};
use super::words::Words;
use alloc::vec::Vec;

/// What a word may become.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Candidates<'a> {
    /// How much of the word stands there, in bytes.
    pub(super) typed: usize,
    /// What it may become; each begins with what stands there.
    pub(super) words: Vec<&'a str>,
}

impl<'a> Candidates<'a> {
    /// Finds what the last word of `head` may become; after a blank that is a new one.
    pub(super) fn of(head: &str, names: &'a Names) -> Self {
        let blank = head.bytes().rposition(|byte| byte == b' ');
        let start = blank.map_or(0, |blank| blank.saturating_add(1));
        let (before, word) = head.split_at_checked(start).unwrap_or_default();
        let mut words = Words(before);
        // `help` is followed by a command, of which it takes no VM's name.
        let asks_help = matches!(words.clone().next(), Some("help" | "?"));
        if asks_help {
            words.next();
        }
        let mut found = Self {
            typed: word.len(),
            words: Vec::new(),
        };
        for usage in USAGE
            .iter()
            .filter(|usage| usage.begins_with(words.clone()))
        {
            match usage.pieces().nth(words.clone().count()) {
                Some(Piece::Word(own)) => found.offer(word, own),
                Some(Piece::Name) if !asks_help => {
                    names.all().for_each(|name| found.offer(word, name));
                }
                _ => {}
            }
        }
        found
    }

    fn offer(&mut self, typed: &str, word: &'a str) {
        if word.starts_with(typed) && !self.words.contains(&word) {
            self.words.push(word);
        }
    }

    /// Returns what may be added to the word without a choice: what all the candidates go on with.
    pub(super) fn certain(&self) -> &'a str {
        let (first, rest) = match self.words.split_first() {
            Some((first, rest)) => (*first, rest),
            None => return "",
        };
        let agreed = rest.iter().fold(first.len(), |agreed, word| {
            let same = first.bytes().zip(word.bytes()).take(agreed);
            same.take_while(|(own, other)| own == other).count()
        });
        first.get(self.typed..agreed).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::Candidates;
    use crate::console::names::Names;
    use proptest::prelude::*;

    #[test]
    fn candidates_by_table() {
        let names = Names::new(["linux", "linux-rt", "rtos"].map(Into::into).to_vec());
        let cases: [(&str, &str, &[&str]); 22] = [
            ("h", "", &["help", "host"]),
            ("he", "lp", &["help"]),
            ("v", "", &["vm", "vcpu"]),
            ("vc", "pu", &["vcpu"]),
            ("vm s", "", &["show", "start", "stop"]),
            ("vm st", "", &["start", "stop"]),
            ("vm sta", "rt", &["start"]),
            ("  vm  sta", "rt", &["start"]),
            ("vm stop ", "", &["linux", "linux-rt", "rtos"]),
            ("vm stop l", "inux", &["linux", "linux-rt"]),
            ("vm stop linux", "", &["linux", "linux-rt"]),
            ("vm stop linux-", "rt", &["linux-rt"]),
            ("vm stop linux ", "", &[]),
            ("vcpu set rtos 8 ", "--timeout", &["--timeout"]),
            ("vcpu set rtos 8 -", "-timeout", &["--timeout"]),
            ("stats r", "tos", &["rtos"]),
            ("help vcpu s", "et", &["set"]),
            ("help vcpu set ", "", &[]),
            ("? j", "son", &["json"]),
            ("host ", "", &["reboot", "poweroff", "time"]),
            ("host reboot ", "--force", &["--force"]),
            ("frobnicate ", "", &[]),
        ];
        for (head, certain, words) in cases {
            let found = Candidates::of(head, &names);
            assert_eq!(
                (found.certain(), &*found.words),
                (certain, words),
                "{head:?}"
            );
        }
    }

    proptest! {
        /// Any text is completed or not; what is offered goes on from what stands there.
        #[test]
        fn any_head_is_looked_at(head in "[ -~]{0,40}") {
            let names = Names::new(["linux", "rtos"].map(Into::into).to_vec());
            let found = Candidates::of(&head, &names);
            let typed = head.rsplit(' ').next().unwrap_or_default();
            prop_assert_eq!(found.typed, typed.len());
            for word in &found.words {
                prop_assert!(word.starts_with(typed) && word[typed.len()..].starts_with(found.certain()));
            }
        }
    }
}
