//! Writes cpio archives in the "newc" format, which Linux unpacks as an initramfs and boot loaders pass as an initrd.
//!
//! The format is described in the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`.
//! Owners are root and times are zero, so that the same content gives the same bytes.

/// File-type bits of a mode, as in `stat(2)`.
mod mode {
    pub(super) const CHARACTER_DEVICE: u32 = 0o020_000;
    pub(super) const DIRECTORY: u32 = 0o040_000;
    pub(super) const REGULAR: u32 = 0o100_000;
    pub(super) const SYMBOLIC_LINK: u32 = 0o120_000;
}

/// Every header and every content starts at a multiple of this.
const ALIGNMENT: usize = 4;
/// Size of a header in bytes: the magic and 13 fields of 8 digits.
const HEADER_BYTES: usize = 110;
/// What [`Archive::page_aligned_file`] aligns content to.
const PAGE_BYTES: usize = 4096;
const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";

/// An archive that is being written.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a directory; its parents have to be added before.
    pub(crate) fn directory(&mut self, path: &str) {
        self.entry(path, mode::DIRECTORY | 0o755, (0, 0), &[]);
    }

    /// Adds a file with the given permission bits.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        self.entry(path, mode::REGULAR | permissions, (0, 0), content);
    }

    /// Adds a file whose content starts on a page boundary: its name gets as many NULs after it as that takes, which
    /// readers of the format, Linux among them, skip.
    pub(crate) fn page_aligned_file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        let name_end = self.bytes.len() + HEADER_BYTES + path.len() + 1;
        let nuls = name_end.next_multiple_of(PAGE_BYTES) - name_end;
        let padded = format!("{path}{}", "\0".repeat(nuls));
        self.file(&padded, permissions, content);
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: &str, destination: &str) {
        self.entry(
            path,
            mode::SYMBOLIC_LINK | 0o777,
            (0, 0),
            destination.as_bytes(),
        );
    }

    /// Adds a character device by its major and minor number.
    pub(crate) fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, mode::CHARACTER_DEVICE | 0o600, (major, minor), &[]);
    }

    /// Ends the archive and returns its bytes.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        self.entries += 1;
        let inode = self.entries;
        let (links, owner, time, check) = (1, 0, 0, 0);
        let size = content.len();
        let name_size = path.len() + 1;
        self.bytes.extend_from_slice(MAGIC.as_bytes());
        // Field order of the header: ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check.
        let header = format!(
            "{inode:08x}{mode:08x}{owner:08x}{owner:08x}{links:08x}{time:08x}{size:08x}{:08x}{:08x}{major:08x}{minor:08x}{name_size:08x}{check:08x}",
            0, 0,
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        let padded = self.bytes.len().next_multiple_of(ALIGNMENT);
        self.bytes.resize(padded, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_the_documented_layout() {
        let mut archive = Archive::default();
        archive.file("a", 0o644, b"hello");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            text.starts_with("07070100000001000081a400000000000000000000000100000000000000050000")
        );
        assert_eq!(
            &bytes[110..112],
            b"a\0",
            "the name follows the 110-byte header"
        );
        assert_eq!(&bytes[112..117], b"hello", "112 is aligned already");
        assert_eq!(
            &bytes[120..126],
            MAGIC.as_bytes(),
            "the next header is aligned"
        );
        assert_eq!(bytes.len() % ALIGNMENT, 0);
        assert!(text.contains(TRAILER));
    }

    #[test]
    fn devices_carry_their_numbers_and_links_their_destination() {
        let mut archive = Archive::default();
        archive.device("console", 5, 1);
        archive.link("sh", "busybox");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("0000000500000001"), "rdevmajor and rdevminor");
        assert!(text.contains("busybox"));
    }

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        let build = || {
            let mut archive = Archive::default();
            archive.directory("etc");
            archive.file("etc/x", 0o600, &[1, 2, 3]);
            archive.finish()
        };
        assert_eq!(build(), build());
    }
}
