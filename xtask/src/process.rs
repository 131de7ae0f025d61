//! Starts other programs: cargo, apt, QEMU. A failure names the program and the end of what it printed.

use anyhow::{Context, bail};
use std::process::{Command, Output, Stdio};

/// How many lines of a failed program's output are worth repeating.
const TAIL_LINES: usize = 15;

/// Runs a command that prints for the reader; fails if it does.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs a command and returns what it printed on standard output, as text.
pub(crate) fn capture(command: &mut Command) -> anyhow::Result<String> {
    let printed = capture_bytes(command)?;
    Ok(String::from_utf8_lossy(&printed).into_owned())
}

/// Runs a command and returns what it printed on standard output.
pub(crate) fn capture_bytes(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let output = output(command)?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let program = command.get_program().to_string_lossy();
        bail!("{program}: {}: {}", output.status, tail(&text));
    }
    Ok(output.stdout)
}

/// Whether a command can be started and succeeds; what it prints is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    output(command).is_ok_and(|output| output.status.success())
}

fn output(command: &mut Command) -> anyhow::Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", shown(command)))
}

/// The command as a person would type it, quoted for a shell.
pub(crate) fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| quoted(&word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

/// One word, quoted for a shell only where it has to be.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let skip = lines.len().saturating_sub(TAIL_LINES);
    lines.into_iter().skip(skip).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_command_can_be_pasted_into_a_shell() {
        let mut command = Command::new("qemu");
        command.args(["-append", "a b", "it's", "", "-smp", "4"]);
        assert_eq!(shown(&command), r"qemu -append 'a b' 'it'\''s' '' -smp 4");
    }

    #[test]
    fn a_failure_names_the_program_and_its_last_words() {
        let error =
            capture(Command::new("sh").args(["-c", "echo out; echo why >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("sh: ") && text.contains("out\nwhy"),
            "{text}"
        );
    }

    #[test]
    fn only_the_end_of_a_long_output_is_repeated() {
        let text: String = (0..100).map(|n| format!("{n}\n")).collect();
        assert!(tail(&text).starts_with("85\n") && tail(&text).ends_with("99"));
    }
}
