//! Fetches arm64 packages of Debian without installing them.
//!
//! Each suite has a private state of apt in the cache: its own list of sources, its own lists, an empty list of what
//! is installed. apt checks the signatures as it does for the machine itself; nothing outside the cache is touched.

use super::apt;
use crate::{paths, process, say};
use anyhow::{Context, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

const ARCHITECTURE: &str = "arm64";
/// Lists older than this are read again before something is fetched: files in an archive are replaced in time.
const LISTS_LIFETIME: Duration = Duration::from_secs(6 * 3600);

/// One suite of the archive, such as `bookworm-backports`, with its lists read.
pub(crate) struct Archive {
    suite: String,
    directory: PathBuf,
}

impl Archive {
    /// Opens a suite, reading its lists if they are not fresh.
    pub(crate) fn open(suite: &str) -> anyhow::Result<Self> {
        ensure!(
            apt::exists(),
            "the guest's kernel comes from Debian's packages, and this machine has no apt: give --kernel and --initrd"
        );
        let archive = Self {
            suite: suite.to_owned(),
            directory: paths::cache().join("apt").join(suite),
        };
        let stamp = archive.directory.join("updated");
        if !is_fresh(&stamp) {
            say::step(
                &format!("reading the package lists of {suite} for {ARCHITECTURE}"),
                || archive.update(),
            )?;
            fs::write(stamp, "")?;
        }
        Ok(archive)
    }

    fn update(&self) -> anyhow::Result<()> {
        for part in [
            "state/lists/partial",
            "cache/archives/partial",
            "sources",
            "preferences",
        ] {
            fs::create_dir_all(self.directory.join(part))
                .with_context(|| format!("cannot write to {}", self.directory.display()))?;
        }
        fs::write(self.directory.join("status"), "")?;
        fs::write(
            self.directory.join("sources/debian.sources"),
            apt::mirror()?.stanza(&self.suite, Some(ARCHITECTURE)),
        )?;
        process::capture(
            self.apt("apt-get")
                .args(["update", "--quiet=2", "--error-on=any"]),
        )
        .with_context(|| {
            format!(
                "cannot read the package lists of {} (if a key is missing: `apt-get install debian-archive-keyring`)",
                self.suite
            )
        })
        .map(drop)
    }

    /// One of apt's programs, led to the private state.
    fn apt(&self, program: &str) -> Command {
        let path = |part: &str| self.directory.join(part).display().to_string();
        let settings = [
            ("Dir::State", path("state")),
            ("Dir::State::status", path("status")),
            ("Dir::Cache", path("cache")),
            ("Dir::Etc::sourcelist", "/dev/null".to_owned()),
            ("Dir::Etc::sourceparts", path("sources")),
            ("Dir::Etc::preferences", "/dev/null".to_owned()),
            ("Dir::Etc::preferencesparts", path("preferences")),
            ("APT::Architecture", ARCHITECTURE.to_owned()),
            ("APT::Architectures", ARCHITECTURE.to_owned()),
            ("APT::Default-Release", self.suite.clone()),
            // The cache lies in a home directory, which apt's own user cannot reach.
            ("APT::Sandbox::User", String::new()),
            ("Acquire::Languages", "none".to_owned()),
            (
                "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled",
                "false".to_owned(),
            ),
        ];
        let mut command = Command::new(program);
        command.env("LC_ALL", "C");
        for (name, value) in settings {
            command.arg("--option").arg(format!("{name}={value}"));
        }
        command
    }

    /// The names of the packages that match a regular expression, the newest last.
    pub(crate) fn names(&self, pattern: &str) -> anyhow::Result<Vec<String>> {
        let text =
            process::capture(
                self.apt("apt-cache")
                    .args(["search", "--names-only", pattern]),
            )?;
        let mut names: Vec<String> = text
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .map(str::to_owned)
            .collect();
        names.sort_by_key(|name| numbers(name));
        Ok(names)
    }

    /// The packages that installing one on an empty machine would bring, itself among them.
    pub(crate) fn closure(&self, package: &str) -> anyhow::Result<Vec<String>> {
        let text = process::capture(self.apt("apt-get").args([
            "install",
            "--simulate",
            "--no-install-recommends",
            package,
        ]))?;
        Ok(text
            .lines()
            .filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next())
            .map(str::to_owned)
            .collect())
    }

    /// Fetches packages and returns their files.
    pub(crate) fn download(&self, packages: &[String]) -> anyhow::Result<Vec<PathBuf>> {
        let directory = self.directory.join("download");
        drop(fs::remove_dir_all(&directory));
        fs::create_dir_all(&directory)?;
        process::capture(
            self.apt("apt-get")
                .args(["download", "--quiet=2"])
                .args(packages)
                .current_dir(&directory),
        )
        .with_context(|| format!("cannot fetch {} from {}", packages.join(" "), self.suite))?;
        let files: Vec<PathBuf> = fs::read_dir(&directory)?
            .flatten()
            .map(|entry| entry.path())
            .collect();
        ensure!(
            files.len() == packages.len(),
            "fetched {} of {} packages of {}",
            files.len(),
            packages.len(),
            self.suite
        );
        Ok(files)
    }
}

/// Unpacks the files of a package that match a pattern of tar, below a directory.
pub(crate) fn unpack(package: &Path, pattern: &str, directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory)?;
    let mut reader = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let archive = reader.stdout.take().context("dpkg-deb has no output")?;
    let mut writer = Command::new("tar");
    writer
        .args(["--extract", "--no-same-owner", "--wildcards", "--directory"])
        .arg(directory)
        .arg(pattern)
        .stdin(archive);
    let result = process::run(&mut writer);
    let read = reader.wait()?;
    ensure!(read.success(), "dpkg-deb cannot read {}", package.display());
    result.with_context(|| format!("{} holds no {pattern}", package.display()))
}

fn is_fresh(stamp: &Path) -> bool {
    let age = fs::metadata(stamp)
        .and_then(|meta| meta.modified())
        .map(|time| SystemTime::now().duration_since(time));
    matches!(age, Ok(Ok(age)) if age < LISTS_LIFETIME)
}

/// The numbers in a name, by which versions are ordered.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_names_are_ordered_as_numbers() {
        let mut names = [
            "linux-image-6.12.95+deb12-cloud-arm64",
            "linux-image-6.12.9+deb12-cloud-arm64",
            "linux-image-6.12.90+deb12.1-cloud-arm64",
        ];
        names.sort_by_key(|name| numbers(name));
        assert_eq!(names.last(), Some(&"linux-image-6.12.95+deb12-cloud-arm64"));
    }
}
