//! What can be wrong with a command, with a word for programs and a sentence for people.

use crate::resize::BeginError;
use alloc::{
    format,
    string::{String, ToString},
};
use types::entitlement::{Bounds, NotEntitled};

types::words! {
    /// The kind of an error: the word a program compares.
    ErrorKind:
    /// The line on the control channel is not a JSON request.
    BadJson = "bad-json",
    /// The line is longer than the console keeps.
    TooLong = "too-long",
    /// There is no such command.
    UnknownCommand = "unknown-command",
    /// The command's arguments are not what it takes.
    Usage = "usage",
    /// A number is malformed or out of range.
    BadNumber = "bad-number",
    /// No VM has this name.
    NoSuchVm = "no-such-vm",
    /// The VM's state does not allow the command.
    WrongState = "wrong-state",
    /// VMs run, and only `--force` ends them.
    NeedsForce = "needs-force",
    /// Something of the kind is already under way.
    Busy = "busy",
    /// The request cannot be fulfilled.
    Refused = "refused",
    /// The time allowed is over.
    Timeout = "timeout",
    /// Memory or another resource is used up.
    NoResources = "no-resources",
    /// The VM is not entitled to it.
    NotEntitled = "not-entitled",
    /// The host or the guest's configuration cannot do it.
    Unsupported = "unsupported",
}

/// An error as the operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError {
    /// What a program compares.
    pub kind: ErrorKind,
    /// What a person reads.
    pub message: String,
    /// What would have been allowed, if that is bounds.
    pub bounds: Option<Bounds>,
}

impl CommandError {
    /// Makes an error.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            bounds: None,
        }
    }

    /// No VM is called `name`.
    #[must_use]
    pub fn no_such_vm(name: &str) -> Self {
        Self::new(
            ErrorKind::NoSuchVm,
            format!("there is no VM named \"{name}\"; `vm list` shows the names"),
        )
    }
}

impl From<NotEntitled> for CommandError {
    fn from(NotEntitled(bounds): NotEntitled) -> Self {
        let message = format!("the VM is entitled to {bounds}");
        Self {
            bounds: Some(bounds),
            ..Self::new(ErrorKind::NotEntitled, message)
        }
    }
}

impl From<BeginError> for CommandError {
    fn from(error: BeginError) -> Self {
        let kind = match error {
            BeginError::Busy { .. } => ErrorKind::Busy,
            BeginError::Zero | BeginError::TooMany { .. } => ErrorKind::BadNumber,
        };
        Self::new(kind, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::{BeginError, CommandError, ErrorKind};
    use std::{collections::BTreeSet, string::ToString};

    #[test]
    fn every_kind_has_its_own_word() {
        let words: BTreeSet<_> = ErrorKind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(words.len(), ErrorKind::ALL.len());
        assert!(words.iter().all(|word| {
            word.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
        }));
    }

    #[test]
    fn resizes_that_cannot_begin_say_why() {
        let cases = [
            (BeginError::Busy { target: 4 }, ErrorKind::Busy),
            (BeginError::Zero, ErrorKind::BadNumber),
            (BeginError::TooMany { possible: 8 }, ErrorKind::BadNumber),
        ];
        for (error, kind) in cases {
            let command_error = CommandError::from(error);
            assert_eq!(
                (command_error.kind, command_error.message),
                (kind, error.to_string())
            );
        }
    }
}
