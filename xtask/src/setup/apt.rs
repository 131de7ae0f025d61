//! Installs Debian packages on this machine, and reads from which archive they come.
//!
//! No host name of an archive stands in this project: the machine's own configuration of apt is asked for the mirror
//! of its Debian release and for the key that signs it, and further suites are taken from the same mirror.

use crate::{paths, process, say};
use anyhow::{Context, bail, ensure};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// The file that enables a further suite for the machine's own apt.
const OUR_SOURCES: &str = "/etc/apt/sources.list.d/bullpen.sources";
const SOURCES_LIST: &str = "/etc/apt/sources.list";
const SOURCES_PARTS: &str = "/etc/apt/sources.list.d";
/// Names a mirror where the machine is no Debian, or its configuration does not tell.
const MIRROR_VARIABLE: &str = "BULLPEN_DEBIAN_MIRROR";
/// How long to wait for another apt that holds the lock, in seconds.
const LOCK_TIMEOUT: &str = "DPkg::Lock::Timeout=120";

/// A Debian mirror: where it is, and the key it is signed by, as apt's `Signed-By` takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirror {
    uri: String,
    signed_by: Option<String>,
}

/// One entry of apt's configuration.
#[derive(Debug, Default, PartialEq, Eq)]
struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    signed_by: Option<String>,
}

/// Whether this machine has apt.
pub(crate) fn exists() -> bool {
    paths::find_program("apt-get").is_some() && paths::find_program("dpkg-deb").is_some()
}

/// Installs packages with the machine's own apt, asking no questions.
pub(crate) fn install(packages: &[&str]) -> anyhow::Result<()> {
    install_with(packages, &[])
}

/// Installs packages from one suite, which is enabled if it is not yet.
pub(crate) fn install_from(packages: &[&str], suite: &str) -> anyhow::Result<()> {
    enable(suite)?;
    install_with(packages, &["--target-release", suite])
}

/// Installs the first of several packages that this Debian has.
pub(crate) fn install_first(alternatives: &[&str]) -> anyhow::Result<()> {
    for package in alternatives {
        if candidate(package)?.is_some() {
            return install(&[package]);
        }
    }
    bail!("Debian here has none of: {}", alternatives.join(", "))
}

fn install_with(packages: &[&str], options: &[&str]) -> anyhow::Result<()> {
    ensure!(
        exists(),
        "missing: {}; install it by your system's package manager",
        packages.join(" ")
    );
    update_once()?;
    say::line(&format!("apt-get install {}", packages.join(" ")));
    let mut command = as_root("apt-get")?;
    command
        .args([
            "install",
            "--yes",
            "--quiet=2",
            "--no-install-recommends",
            "--option",
            LOCK_TIMEOUT,
            "--option",
            "Dpkg::Use-Pty=0",
        ])
        .args(options)
        .args(packages);
    process::capture(&mut command)
        .with_context(|| format!("cannot install {}", packages.join(" ")))
        .map(drop)
}

/// Reads the lists, if this process has not yet: old ones name files that an archive no longer has.
fn update_once() -> anyhow::Result<()> {
    static UPDATED: AtomicBool = AtomicBool::new(false);
    if UPDATED.load(Ordering::Relaxed) {
        return Ok(());
    }
    update()?;
    UPDATED.store(true, Ordering::Relaxed);
    Ok(())
}

fn update() -> anyhow::Result<()> {
    let mut command = as_root("apt-get")?;
    command.args(["update", "--quiet=2", "--option", LOCK_TIMEOUT]);
    say::step("reading Debian's package lists", || {
        process::capture(&mut command)
    })
    .map(drop)
}

/// The version of a package that would be installed, if there is any.
pub(crate) fn candidate(package: &str) -> anyhow::Result<Option<String>> {
    update_once()?;
    let mut policy = Command::new("apt-cache");
    let text = process::capture(policy.args(["policy", package]).env("LC_ALL", "C"))?;
    let version = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "));
    Ok(version
        .filter(|version| *version != "(none)")
        .map(str::to_owned))
}

/// A command that runs as root: directly, or by sudo.
fn as_root(program: &str) -> anyhow::Result<Command> {
    let root = process::capture(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    let mut command = if root {
        Command::new(program)
    } else {
        ensure!(
            paths::find_program("sudo").is_some(),
            "installing packages needs root: run `cargo xtask setup` as root once"
        );
        let mut sudo = Command::new("sudo");
        sudo.arg("--").arg(program);
        sudo
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    Ok(command)
}

/// Enables a suite of the machine's Debian mirror, in a file of our own, and reads its lists.
fn enable(suite: &str) -> anyhow::Result<()> {
    let wanted = mirror()?.stanza(suite, None);
    if std::fs::read_to_string(OUR_SOURCES).is_ok_and(|present| present == wanted) {
        return Ok(());
    }
    say::line(&format!("enabling {suite} in {OUR_SOURCES}"));
    let staged = std::env::temp_dir().join(format!("bullpen-{}.sources", std::process::id()));
    std::fs::write(&staged, &wanted)?;
    let result = process::capture(
        as_root("install")?
            .args(["-m", "0644"])
            .arg(&staged)
            .arg(OUR_SOURCES),
    );
    std::fs::remove_file(&staged)?;
    result?;
    update()
}

/// The code name of this machine's Debian release, such as `bookworm`.
pub(crate) fn codename() -> anyhow::Result<String> {
    let text = std::fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    value
        .map(|value| value.trim_matches('"').to_owned())
        .context("/etc/os-release names no VERSION_CODENAME")
}

/// The mirror from which this machine takes its Debian release.
pub(crate) fn mirror() -> anyhow::Result<Mirror> {
    if let Ok(uri) = std::env::var(MIRROR_VARIABLE) {
        return Ok(Mirror {
            uri,
            signed_by: Some("/usr/share/keyrings/debian-archive-keyring.gpg".to_owned()),
        });
    }
    let codename = codename()?;
    choose(&sources()?, &codename)
        .with_context(|| format!("apt's configuration names no mirror of Debian {codename}: set {MIRROR_VARIABLE} to a Debian mirror's address"))
}

fn choose(sources: &[Source], codename: &str) -> Option<Mirror> {
    let source = sources
        .iter()
        .find(|source| source.suites.iter().any(|suite| suite == codename))?;
    Some(Mirror {
        uri: source.uris.first()?.clone(),
        signed_by: source.signed_by.clone(),
    })
}

impl Mirror {
    /// An entry for apt's configuration that names one suite.
    pub(crate) fn stanza(&self, suite: &str, architecture: Option<&str>) -> String {
        let signed_by = self
            .signed_by
            .as_ref()
            .map(|key| format!("Signed-By: {key}\n"))
            .unwrap_or_default();
        let architecture = architecture
            .map(|name| format!("Architectures: {name}\n"))
            .unwrap_or_default();
        format!(
            "# Written by `cargo xtask setup` of Bullpen.\nTypes: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n{architecture}{signed_by}",
            self.uri
        )
    }
}

/// Reads all entries of the machine's configuration but our own.
fn sources() -> anyhow::Result<Vec<Source>> {
    let mut found = std::fs::read_to_string(SOURCES_LIST)
        .map(|text| one_line_sources(&text))
        .unwrap_or_default();
    let Ok(parts) = std::fs::read_dir(SOURCES_PARTS) else {
        return Ok(found);
    };
    let mut files: Vec<_> = parts
        .flatten()
        .map(|part| part.path())
        .filter(|path| path != Path::new(OUR_SOURCES))
        .collect();
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => found.extend(one_line_sources(&text)),
            Some("sources") => found.extend(stanza_sources(&text)),
            _ => {}
        }
    }
    Ok(found)
}

/// Parses the one-line format of `sources.list(5)`: `deb [options] uri suite component…`.
fn one_line_sources(text: &str) -> Vec<Source> {
    text.lines().filter_map(one_line_source).collect()
}

fn one_line_source(line: &str) -> Option<Source> {
    let rest = line
        .split('#')
        .next()?
        .trim()
        .strip_prefix("deb ")?
        .trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let uri = words.next()?.to_owned();
    let suite = words.next()?.to_owned();
    let signed_by = options
        .split_whitespace()
        .find_map(|option| option.strip_prefix("signed-by="))
        .map(str::to_owned);
    Some(Source {
        uris: vec![uri],
        suites: vec![suite],
        signed_by,
    })
}

/// Parses the stanza format of `sources.list(5)`. A value goes on in the lines that start with a blank: an embedded key does.
fn stanza_sources(text: &str) -> Vec<Source> {
    let mut stanzas = vec![Vec::<(String, String)>::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some(stanza) = stanzas.last_mut() else {
            break;
        };
        if line.trim().is_empty() {
            stanzas.push(Vec::new());
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = stanza.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            stanza.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    stanzas
        .iter()
        .filter_map(|stanza| stanza_source(stanza))
        .collect()
}

fn stanza_source(fields: &[(String, String)]) -> Option<Source> {
    let field = |name: &str| {
        fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    };
    let words = |name: &str| {
        field(name).map(|value| {
            value
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
    };
    let disabled = field("enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
    let binary = words("types")?.iter().any(|kind| kind == "deb");
    (binary && !disabled).then(|| {
        Some(Source {
            uris: words("uris")?,
            suites: words("suites")?,
            signed_by: field("signed-by").map(str::to_owned),
        })
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZAS: &str = "Types: deb\n# a comment\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k.gpg\n\n\
        Types: deb\nURIs: http://mirror.test/security\nSuites: bookworm-security\nComponents: main\n";

    #[test]
    fn the_mirror_is_the_one_of_the_release_itself() {
        let mirror = choose(&stanza_sources(STANZAS), "bookworm").unwrap();
        assert_eq!(
            mirror,
            Mirror {
                uri: "http://mirror.test/debian".into(),
                signed_by: Some("/k.gpg".into())
            }
        );
        assert_eq!(choose(&stanza_sources(STANZAS), "trixie"), None);
    }

    #[test]
    fn one_line_entries_are_understood() {
        let text = "# deb http://no.test x main\ndeb-src http://src.test bookworm main\n\
            deb [arch=amd64 signed-by=/k.asc] http://mirror.test/debian bookworm main # why\ndeb http://two.test bookworm contrib\n";
        let found = one_line_sources(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].uris, ["http://mirror.test/debian"]);
        assert_eq!(found[0].signed_by.as_deref(), Some("/k.asc"));
        assert_eq!(found[1].signed_by, None);
    }

    #[test]
    fn disabled_and_source_only_stanzas_do_not_count() {
        assert_eq!(
            stanza_sources("Types: deb\nEnabled: no\nURIs: http://a.test\nSuites: bookworm\n"),
            []
        );
        assert_eq!(
            stanza_sources("Types: deb-src\nURIs: http://a.test\nSuites: bookworm\n"),
            []
        );
    }

    #[test]
    fn an_embedded_key_is_kept_as_it_is() {
        let text = "Types: deb\nURIs: http://a.test\nSuites: s\nSigned-By:\n -----BEGIN-----\n .\n abc\n -----END-----\n";
        let mirror = choose(&stanza_sources(text), "s").unwrap();
        let stanza = mirror.stanza("s-backports", Some("arm64"));
        assert!(
            stanza.contains("Suites: s-backports\n") && stanza.contains("Architectures: arm64\n")
        );
        assert!(
            stanza.ends_with("Signed-By: \n -----BEGIN-----\n .\n abc\n -----END-----\n"),
            "{stanza}"
        );
        assert_eq!(
            choose(&stanza_sources(&stanza), "s-backports").unwrap(),
            mirror,
            "what is written is read back"
        );
    }
}
