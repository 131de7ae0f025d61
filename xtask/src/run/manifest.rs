//! The manifest of the one guest that `cargo xtask run` describes by options. Its format is in `docs/manifest.md`.

use std::path::Path;

/// The guest, always named `linux`.
pub(crate) struct Vm<'a> {
    pub(crate) kernel: &'a Path,
    pub(crate) initrd: Option<&'a Path>,
    pub(crate) command_line: &'a str,
    pub(crate) memory_bytes: u64,
    pub(crate) vcpus: u16,
    pub(crate) max_vcpus: u16,
    pub(crate) firmware: &'a str,
}

/// The manifest as TOML.
pub(crate) fn text(vm: &Vm) -> String {
    let initrd = vm
        .initrd
        .map(|file| format!("initrd = {}\n", quoted(&file.to_string_lossy())))
        .unwrap_or_default();
    format!(
        "[[vm]]\nname = \"linux\"\nkernel = {}\n{initrd}command-line = {}\nmemory = {}\nboot-vcpus = {}\nmax-vcpus = {}\nfirmware = \"{}\"\n",
        quoted(&vm.kernel.to_string_lossy()),
        quoted(vm.command_line),
        vm.memory_bytes,
        vm.vcpus,
        vm.max_vcpus,
        vm.firmware,
    )
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_without_an_initrd_names_none() {
        let vm = Vm {
            kernel: Path::new("/k"),
            initrd: None,
            command_line: "a=\"b c\" d\\e",
            memory_bytes: 1 << 29,
            vcpus: 2,
            max_vcpus: 8,
            firmware: "acpi",
        };
        let text = text(&vm);
        assert!(!text.contains("initrd"));
        assert!(
            text.contains(r#"command-line = "a=\"b c\" d\\e""#),
            "{text}"
        );
        assert!(
            text.contains("memory = 536870912\n") && text.contains("max-vcpus = 8\n"),
            "{text}"
        );
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(quoted("a\tb"), r#""a\u0009b""#);
    }
}
