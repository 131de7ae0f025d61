//! What there is to say to Bullpen: the table behind `help` and behind completion.

use super::words::Words;
use alloc::string::String;

/// A command's usage and what it does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// How to write it: words as they are, what stands for something else in capitals, what may be left out in brackets.
    pub(super) form: &'static str,
    /// What it does.
    pub(super) text: &'static str,
}

/// All commands, in the order in which `help` shows them: those with the same first words stand together.
pub(super) const USAGE: [Usage; 32] = [
    usage("help [COMMAND]", "explain the commands"),
    usage("vm list", "list the VMs"),
    usage("vm show NAME", "tell all about a VM"),
    usage("vm start NAME", "start a VM that is off"),
    usage("vm stop NAME", "turn a VM off at once"),
    usage("vm reset NAME", "reset a VM at once"),
    usage("vm pause NAME", "keep a VM from running"),
    usage("vm resume NAME", "let a paused VM run on"),
    usage("vm powerbutton NAME", "press the guest's power button"),
    usage("vm cap NAME MILLICORES", "limit a VM's CPU time, or `none`"),
    usage("vm weight NAME N", "share a CPU by weights, 100 if unsaid"),
    usage("vcpu list NAME", "list a VM's vCPUs"),
    usage("vcpu set NAME N [--timeout S]", "give the guest N vCPUs"),
    usage("vcpu pin NAME VCPU CPU", "run a vCPU on this CPU"),
    usage("mem list NAME", "list a VM's memory slots"),
    usage(
        "mem set NAME SIZE [--force]",
        "give the guest so much memory",
    ),
    usage("device list NAME", "list a VM's virtio devices"),
    usage("disk list [NAME]", "list disks and what is written of them"),
    usage("net list [NAME]", "list ports of networks"),
    usage("console NAME", "attach the terminal to a VM's console"),
    usage("top", "watch VMs and vCPUs run; q ends it"),
    usage("stats [NAME]", "count exits by reason"),
    usage("usage [NAME]", "tell what VMs held, ran and waited"),
    usage("watch usage SECONDS", "tell programs that again and again"),
    usage("unwatch usage", "tell programs no more"),
    usage("log", "show the hypervisor's log"),
    usage("host", "describe the host"),
    usage("host reboot [--force]", "start the host anew"),
    usage("host poweroff [--force]", "turn the host off"),
    usage("host time [set TIME]", "tell or set the time of day"),
    usage("json on", "speak JSON lines on this terminal"),
    usage("json off", "go back to the prompt"),
];

const fn usage(form: &'static str, text: &'static str) -> Usage {
    Usage { form, text }
}

/// A word of a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Written as it is.
    Word(&'static str),
    /// The name of a VM.
    Name,
    /// Something else, and an example of it.
    Value(&'static str),
}

impl Usage {
    /// Returns the words of the form.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Piece> + use<> {
        Words(self.form).map(|word| match bare(word) {
            "NAME" => Piece::Name,
            "COMMAND" => Piece::Value("vcpu set"),
            "N" => Piece::Value("8"),
            "MILLICORES" => Piece::Value("2500m"),
            "SECONDS" => Piece::Value("10"),
            "S" => Piece::Value("30"),
            "SIZE" => Piece::Value("2G"),
            "VCPU" | "CPU" => Piece::Value("1"),
            "TIME" => Piece::Value("2026-11-29T16:12:06Z"),
            word => Piece::Word(word),
        })
    }

    /// Returns one that could be typed where there is a VM with this name.
    pub(super) fn example(&self, name: &str) -> String {
        let mut example = String::new();
        for piece in self.pieces() {
            if !example.is_empty() {
                example.push(' ');
            }
            example.push_str(match piece {
                Piece::Word(word) | Piece::Value(word) => word,
                Piece::Name => name,
            });
        }
        example
    }

    /// Returns whether the form begins with these words; what stands for something else agrees with any word.
    pub(super) fn begins_with(&self, mut words: Words<'_>) -> bool {
        let mut pieces = self.pieces();
        words.all(|word| match pieces.next() {
            Some(Piece::Word(own)) => own == word,
            Some(_) => true,
            None => false,
        })
    }
}

/// Returns a word of a form without the brackets around what may be left out.
fn bare(word: &'static str) -> &'static str {
    let word = word.strip_prefix('[').unwrap_or(word);
    word.strip_suffix(']').unwrap_or(word)
}

/// Commands that `help` is asked about: neighbours in [`USAGE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topic {
    first: u8,
    count: u8,
}

impl Topic {
    /// Every command.
    #[cfg(test)]
    pub(super) const ALL: Self = Self {
        first: 0,
        count: USAGE.len() as u8,
    };

    /// Finds the commands that begin with these words; `None` if there are none.
    pub(super) fn of(words: &Words<'_>) -> Option<Self> {
        let fits = |usage: &Usage| usage.begins_with(words.clone());
        let first = USAGE.iter().position(fits)?;
        let count = USAGE.iter().filter(|usage| fits(usage)).count();
        let [first, count] = [first, count].map(|number| number as u8);
        Some(Self { first, count })
    }

    /// Returns the commands.
    pub(super) fn commands(self) -> &'static [Usage] {
        let from = USAGE.get(usize::from(self.first)..).unwrap_or_default();
        from.get(..usize::from(self.count)).unwrap_or(from)
    }

    /// Returns whether it is every command there is.
    pub(super) const fn is_everything(self) -> bool {
        self.count as usize == USAGE.len()
    }
}
