//! Where things are: the source tree, the target directory and the cache of fetched guest parts.

use std::path::{Path, PathBuf};

/// The root of the source tree.
pub(crate) fn root() -> &'static Path {
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest_dir.parent().unwrap_or(manifest_dir)
}

/// The target directory of the host's own builds.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => std::path::absolute(&dir).unwrap_or_else(|_| dir.into()),
        None => root().join("target"),
    }
}

/// The target directory of one bare-metal build, apart from the host's: other compiler, other flags.
pub(crate) fn bare_target(name: &str) -> PathBuf {
    target().join(name)
}

/// The cache for what is fetched once and shared by all work trees of this user.
///
/// `BULLPEN_CACHE` overrides it; otherwise the XDG cache directory.
pub(crate) fn cache() -> PathBuf {
    let from = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    from("BULLPEN_CACHE")
        .or_else(|| from("XDG_CACHE_HOME").map(|dir| dir.join("bullpen")))
        .or_else(|| from("HOME").map(|dir| dir.join(".cache/bullpen")))
        .unwrap_or_else(|| root().join("target/cache"))
}

/// Where the sources of crates that are not ours lie: cargo's registries, and the library of Debian's compiler.
pub(crate) fn crate_sources() -> Vec<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cargo")));
    let registries = home.and_then(|home| std::fs::read_dir(home.join("registry/src")).ok());
    let registries = registries.into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = registries.map(|entry| entry.path()).collect();
    folders.sort();
    folders.push("/usr/lib/rustlib/src/rust".into());
    folders
}

/// Finds a program in `PATH`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}
