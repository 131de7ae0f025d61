//! What is on a disk: an image of the bundle, which nothing changes, and pages of RAM for what the guest has written instead.
//!
//! The memory for those pages is taken when the VM starts and given back when it is off, so a request allocates nothing. It begins
//! with a number for each page of the image: 0 for one that is as in the image, else one more than the page of RAM that replaces it.

use core::ops::Range;

use super::spec::SECTOR_BYTES;

/// Bytes of a page, the unit in which writes replace the image.
pub(crate) const PAGE_BYTES: usize = 4096;
/// Bytes of a page's number.
const ENTRY_BYTES: usize = 4;
/// What is behind the end of an image, in its last sector.
static ZEROS: [u8; SECTOR_BYTES as usize] = [0; SECTOR_BYTES as usize];

/// Every page that there is memory for has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// A disk's content.
#[derive(Debug)]
pub(super) struct Disk {
    image: &'static [u8],
    /// Bytes for pages that are written; 0 for a disk that is only read.
    quota: u64,
    pages: Option<Pages>,
}

/// The pages that were written.
#[derive(Debug)]
struct Pages {
    /// The whole memory: numbers, then pages.
    memory: &'static mut [u8],
    /// Where the pages begin.
    start: usize,
    used: u32,
}

impl Disk {
    pub(super) const fn new(image: &'static [u8], quota: u64) -> Self {
        Self {
            image,
            quota,
            pages: None,
        }
    }

    /// Returns how many bytes the disk has.
    pub(super) const fn bytes(&self) -> u64 {
        self.image.len() as u64
    }

    pub(super) const fn is_read_only(&self) -> bool {
        self.quota == 0
    }

    /// Returns how many bytes are replaced by what was written, and how many may be; none for a disk that is only read.
    pub(super) fn replaced(&self) -> Option<(u64, u64)> {
        let pages = self.pages.as_ref().map_or(0, |pages| u64::from(pages.used));
        let bytes = pages.wrapping_mul(PAGE_BYTES as u64);
        (self.quota != 0).then_some((bytes, self.quota))
    }

    /// Returns how much memory it needs while its VM is on and does not have; a multiple of a page.
    pub(super) fn wanted_bytes(&self) -> u64 {
        match (self.quota, &self.pages) {
            (0, _) | (_, Some(_)) => 0,
            (quota, None) => (self.table_bytes() as u64).saturating_add(quota),
        }
    }

    /// Returns the size of the numbers of all pages, in whole pages.
    fn table_bytes(&self) -> usize {
        let pages = self.image.len().div_ceil(PAGE_BYTES);
        pages
            .saturating_mul(ENTRY_BYTES)
            .next_multiple_of(PAGE_BYTES)
    }

    /// Gives the disk the memory that it asked for; nothing is written then.
    pub(super) fn give(&mut self, memory: &'static mut [u8]) {
        let start = self.table_bytes();
        if let Some(table) = memory.get_mut(..start) {
            table.fill(0);
            self.pages = Some(Pages {
                memory,
                start,
                used: 0,
            });
        }
    }

    /// Takes the memory back, and with it what was written.
    pub(super) fn take(&mut self) -> Option<&'static mut [u8]> {
        self.pages.take().map(|pages| pages.memory)
    }

    /// Returns bytes from `offset` on that lie together, at least one and at most `limit`; behind the image they are zeros.
    pub(super) fn read(&self, offset: u64, limit: usize) -> &[u8] {
        let offset = offset as usize;
        let within = offset % PAGE_BYTES;
        let from_image = || {
            let whole = self.image.get(offset..).unwrap_or(&[]);
            match whole.is_empty() {
                true => &ZEROS,
                false => whole,
            }
        };
        let found = match &self.pages {
            None => from_image(),
            Some(pages) => match pages.of(offset / PAGE_BYTES) {
                Some(range) => pages
                    .memory
                    .get(range)
                    .and_then(|page| page.get(within..))
                    .unwrap_or(&[]),
                // The next page may be another one.
                None => {
                    let rest = from_image();
                    rest.get(..PAGE_BYTES.wrapping_sub(within)).unwrap_or(rest)
                }
            },
        };
        found.get(..limit).unwrap_or(found)
    }

    /// Has `fill` write `bytes` bytes at `offset`, all in one page.
    ///
    /// # Errors
    /// [`Full`] if there is no memory for the page; nothing was written. What `fill` fails with is passed on; then the page is as
    /// it was but for what `fill` has written.
    pub(super) fn write<E>(
        &mut self,
        offset: u64,
        bytes: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Result<(), E>, Full> {
        let offset = offset as usize;
        let (index, within) = (offset / PAGE_BYTES, offset % PAGE_BYTES);
        let pages = self.pages.as_mut().ok_or(Full)?;
        let (range, is_new) = match pages.of(index) {
            Some(range) => (range, false),
            None => (pages.next().ok_or(Full)?, true),
        };
        let page = pages.memory.get_mut(range).ok_or(Full)?;
        if is_new && bytes < PAGE_BYTES {
            let rest = self.image.get(offset.wrapping_sub(within)..);
            copy_page(rest.unwrap_or(&[]), page);
        }
        let end = within.saturating_add(bytes);
        let filled = fill(page.get_mut(within..end).ok_or(Full)?);
        // A page that could not be filled still holds what another VM may have had there: it does not become part of the disk.
        if is_new && filled.is_ok() {
            pages.replace(index);
        }
        Ok(filled)
    }
}

impl Pages {
    /// Returns where the page is that replaces one of the image.
    fn of(&self, index: usize) -> Option<Range<usize>> {
        let (numbers, _) = self.memory.as_chunks::<ENTRY_BYTES>();
        let number = u32::from_le_bytes(*numbers.get(index)?);
        self.page(number.checked_sub(1)?)
    }

    /// Returns where the next page is that replaces none yet.
    fn next(&self) -> Option<Range<usize>> {
        self.page(self.used)
            .filter(|range| range.end <= self.memory.len())
    }

    fn page(&self, number: u32) -> Option<Range<usize>> {
        let offset = (number as usize).checked_mul(PAGE_BYTES)?;
        let start = self.start.checked_add(offset)?;
        Some(start..start.checked_add(PAGE_BYTES)?)
    }

    /// Makes the next page replace one of the image.
    fn replace(&mut self, index: usize) {
        let number = self.used.wrapping_add(1);
        let (numbers, _) = self.memory.as_chunks_mut::<ENTRY_BYTES>();
        if let Some(entry) = numbers.get_mut(index) {
            *entry = number.to_le_bytes();
            self.used = number;
        }
    }
}

/// Fills a page with what an image has from there on, and zeros.
fn copy_page(from: &[u8], page: &mut [u8]) {
    let from = from.get(..page.len()).unwrap_or(from);
    let (data, rest) = page.split_at_mut(from.len());
    data.copy_from_slice(from);
    rest.fill(0);
}
