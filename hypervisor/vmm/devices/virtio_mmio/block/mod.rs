//! A disk (VIRTIO 1.2, 5.2): serves reads and writes of one queue from an image of the bundle, or from what was written in its place.
//!
//! A request is served where the driver tells of it. What is more than a trap may do is kept as a place within the request, and goes
//! on from there. A request that is formed wrongly breaks the device; one that asks for what the disk has not is an I/O error.

mod disk;
mod spec;
#[cfg(test)]
mod tests;

use super::chain::{Chain, Cursor};
use super::queue::{Broken, Queue};
use super::transport::Kind;
use super::work::{Budget, Served};
use crate::memory::GuestMemory;
use disk::{Disk, Full, PAGE_BYTES};
use spec::{SECTOR_BYTES, Status, config, feature, request};
use types::address::GuestPhys;

/// The size of the queue, and how many buffers of data a request has at most: the others are its header and its status.
const QUEUE_SIZE: u16 = 128;
const SEGMENTS: u32 = QUEUE_SIZE as u32 - 2;
/// What is replaced at once when the guest writes: told to it, so that it writes whole ones.
const BLOCK_BYTES: u32 = PAGE_BYTES as u32;
const BLOCK_SECTORS: u16 = (PAGE_BYTES as u64 / SECTOR_BYTES) as u16;

/// What the operator is told of a disk. Counts are since the VM's start or reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskReport {
    /// Its size in bytes.
    pub bytes: u64,
    /// How many bytes of it are replaced by what the guest wrote, and how many may be; none for a disk that is only read.
    pub replaced: Option<(u64, u64)>,
    /// Bytes that the guest has read.
    pub read_bytes: u64,
    /// Bytes that the guest has written.
    pub written_bytes: u64,
    /// Requests that failed.
    pub errors: u64,
}

/// A block device.
#[derive(Debug)]
pub(crate) struct Block {
    disk: Disk,
    id: [u8; request::ID_BYTES],
    chain: Chain,
    /// The request that is being served.
    work: Option<Work>,
    /// Whether a write has found no page, and the operator has not heard of it.
    is_full_news: bool,
    was_full: bool,
    /// Its counts; what else there is to tell the disk knows.
    counts: DiskReport,
}

/// What is left to do of a request.
#[derive(Clone, Copy, Debug)]
struct Work {
    is_write: bool,
    /// Where on the disk it goes on, and how many bytes there are to go.
    offset: u64,
    left: u32,
    cursor: Cursor,
    /// How many bytes were written to the guest.
    written: u32,
    status: Status,
}

impl Block {
    /// Makes a disk with the content of an image. The guest may write `quota` bytes of it, in whole pages; none makes it read-only.
    #[must_use]
    pub(crate) fn new(name: &str, image: &'static [u8], quota: u64) -> Self {
        let mut id = [0; request::ID_BYTES];
        for (to, from) in id.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        Self {
            disk: Disk::new(image, quota),
            id,
            chain: Chain::new(QUEUE_SIZE),
            work: None,
            is_full_news: false,
            was_full: false,
            counts: DiskReport::default(),
        }
    }

    /// Returns what its transport says of it.
    #[must_use]
    pub(crate) fn kind(&self) -> Kind {
        let common = feature::SEG_MAX | feature::FLUSH | feature::TOPOLOGY;
        let features = match self.disk.is_read_only() {
            true => common | feature::RO,
            false => common,
        };
        Kind {
            device_id: spec::DEVICE_ID,
            features,
            queues: &[QUEUE_SIZE],
        }
    }

    /// Returns how much memory it still needs while its VM is on; see [`Block::give`].
    #[must_use]
    pub(crate) fn wanted_bytes(&self) -> u64 {
        self.disk.wanted_bytes()
    }

    /// Gives it the memory for what is written.
    pub(crate) fn give(&mut self, memory: &'static mut [u8]) {
        self.disk.give(memory);
        (self.is_full_news, self.was_full) = (false, false);
    }

    /// Takes the memory back, with what was written.
    #[must_use = "memory that is dropped is lost"]
    pub(crate) fn take(&mut self) -> Option<&'static mut [u8]> {
        self.disk.take()
    }

    /// Describes the disk for the operator.
    #[must_use]
    pub(crate) fn report(&self) -> DiskReport {
        DiskReport {
            bytes: self.disk.bytes(),
            replaced: self.disk.replaced(),
            ..self.counts
        }
    }

    /// Returns whether a write has failed for want of a page and [`Block::take_full`] has not been asked since.
    #[must_use]
    pub(crate) const fn has_full_news(&self) -> bool {
        self.is_full_news
    }

    /// Returns whether a write has failed for want of a page, once.
    pub(crate) const fn take_full(&mut self) -> bool {
        core::mem::replace(&mut self.is_full_news, false)
    }

    /// Forgets the request that is being served.
    pub(crate) fn forget(&mut self) {
        self.work = None;
    }

    /// Begins to count anew.
    pub(crate) fn reset_counts(&mut self) {
        self.counts = DiskReport::default();
    }

    /// Reads bytes of the configuration.
    #[must_use]
    pub(crate) fn config(&self) -> [u8; config::BYTES] {
        let mut bytes = [0; config::BYTES];
        let mut put = |at: usize, value: &[u8]| {
            for (to, from) in bytes.iter_mut().skip(at).zip(value) {
                *to = *from;
            }
        };
        put(config::CAPACITY, &self.sectors().to_le_bytes());
        put(config::SEG_MAX, &SEGMENTS.to_le_bytes());
        let exponent = BLOCK_SECTORS.trailing_zeros() as u8;
        put(config::PHYSICAL_BLOCK, &[exponent]);
        put(config::MIN_IO, &BLOCK_SECTORS.to_le_bytes());
        put(config::NUM_QUEUES, &1_u16.to_le_bytes());
        bytes
    }

    const fn sectors(&self) -> u64 {
        self.disk.bytes().div_ceil(SECTOR_BYTES)
    }

    /// Serves requests until none is left, or what may be done in one go is done.
    ///
    /// # Errors
    /// [`Broken`] if the driver broke the rules.
    pub(crate) fn serve<M: GuestMemory>(
        &mut self,
        queue: &mut Queue,
        memory: &M,
        budget: &mut Budget,
    ) -> Result<Served, Broken> {
        let mut served = Served::default();
        loop {
            if self.work.is_none() {
                if !served.take(queue, memory, &mut self.chain, budget)? {
                    break;
                }
                self.work = Some(self.begin(memory)?);
            }
            let Some(mut work) = self.work.take() else {
                break;
            };
            let is_done = self.carry_on(&mut work, memory, budget)?;
            if !is_done {
                self.work = Some(work);
                served.is_more = true;
                break;
            }
            self.finish(&work, queue, memory)?;
            if budget.is_spent() {
                served.is_more = queue.has_available(memory)?;
                break;
            }
        }
        served.publish(queue, memory)?;
        Ok(served)
    }

    /// Reads the header of the request that was popped.
    fn begin<M: GuestMemory>(&self, memory: &M) -> Result<Work, Broken> {
        let (mut reader, mut header) = (self.chain.reader(), [0; request::HEADER_BYTES]);
        let read = reader.read(&self.chain, memory, &mut header)?;
        // The last byte that the device may write is the status.
        let room = self.chain.writable_bytes().checked_sub(1);
        let (Some(room), request::HEADER_BYTES) = (room, read) else {
            return Err(Broken::Request);
        };
        let value = u128::from_le_bytes(header);
        let (kind, sector) = (value as u32, (value >> 64) as u64);
        let nothing = Work {
            is_write: false,
            offset: 0,
            left: 0,
            cursor: self.chain.writer(),
            written: 0,
            status: Status::Ok,
        };
        let data = self.chain.readable_bytes().wrapping_sub(read as u32);
        Ok(match kind {
            request::IN => self.transfer(nothing, sector, room),
            request::OUT => self.transfer(
                Work {
                    is_write: true,
                    cursor: reader,
                    ..nothing
                },
                sector,
                data,
            ),
            request::FLUSH => nothing,
            request::GET_ID => self.answer_id(nothing, memory)?,
            _ => Work {
                status: Status::Unsupported,
                ..nothing
            },
        })
    }

    /// Makes work of a read or a write if the disk has that place.
    fn transfer(&self, work: Work, sector: u64, bytes: u32) -> Work {
        let is_whole = u64::from(bytes).is_multiple_of(SECTOR_BYTES);
        let end = sector.checked_add(u64::from(bytes) / SECTOR_BYTES);
        let is_there = end.is_some_and(|end| end <= self.sectors());
        if !is_whole || !is_there || (work.is_write && self.disk.is_read_only()) {
            return Work {
                status: Status::IoError,
                ..work
            };
        }
        Work {
            offset: sector.wrapping_mul(SECTOR_BYTES),
            left: bytes,
            ..work
        }
    }

    fn answer_id<M: GuestMemory>(&self, mut work: Work, memory: &M) -> Result<Work, Broken> {
        let room = self.chain.writable_bytes().wrapping_sub(1) as usize;
        let id = self.id.get(..room).unwrap_or(&self.id);
        work.written = work.cursor.write(&self.chain, memory, id)? as u32;
        Ok(work)
    }

    /// Moves bytes until the request is done; returns whether it is.
    fn carry_on<M: GuestMemory>(
        &mut self,
        work: &mut Work,
        memory: &M,
        budget: &mut Budget,
    ) -> Result<bool, Broken> {
        while work.left != 0 && work.status == Status::Ok {
            if budget.is_spent() {
                return Ok(false);
            }
            // A piece is at most a page, and goes over no page's end: so a guest that writes whole pages writes each in one piece.
            let in_page = BLOCK_BYTES.wrapping_sub(work.offset as u32 % BLOCK_BYTES);
            let limit = work.left.min(in_page);
            let moved = match work.is_write {
                true => self.write_piece(work, memory, limit)?,
                false => self.read_piece(work, memory, limit)?,
            };
            budget.spend(moved);
            work.left = work.left.wrapping_sub(moved);
            work.offset = work.offset.wrapping_add(u64::from(moved));
        }
        Ok(true)
    }

    /// Copies from the disk to the guest.
    fn read_piece<M: GuestMemory>(
        &mut self,
        work: &mut Work,
        memory: &M,
        limit: u32,
    ) -> Result<u32, Broken> {
        let from = self.disk.read(work.offset, limit as usize);
        let piece = work.cursor.next(&self.chain, from.len() as u32);
        let piece = piece.ok_or(Broken::Request)?;
        let from = from.get(..piece.bytes as usize).unwrap_or(from);
        memory.write(GuestPhys::new(piece.address), from)?;
        work.written = work.written.wrapping_add(piece.bytes);
        self.counts.read_bytes = self.counts.read_bytes.wrapping_add(u64::from(piece.bytes));
        Ok(piece.bytes)
    }

    /// Copies from the guest to a page of the disk.
    fn write_piece<M: GuestMemory>(
        &mut self,
        work: &mut Work,
        memory: &M,
        limit: u32,
    ) -> Result<u32, Broken> {
        let piece = work.cursor.next(&self.chain, limit);
        let piece = piece.ok_or(Broken::Request)?;
        let at = GuestPhys::new(piece.address);
        let bytes = piece.bytes as usize;
        let written = self
            .disk
            .write(work.offset, bytes, |page| memory.read(at, page));
        match written {
            Ok(copied) => copied?,
            Err(Full) => {
                work.status = Status::IoError;
                self.is_full_news |= !self.was_full;
                self.was_full = true;
                return Ok(0);
            }
        }
        self.counts.written_bytes = self.counts.written_bytes.wrapping_add(piece.bytes.into());
        Ok(piece.bytes)
    }

    /// Tells the driver how the request ended.
    fn finish<M: GuestMemory>(
        &mut self,
        work: &Work,
        queue: &mut Queue,
        memory: &M,
    ) -> Result<(), Broken> {
        let at = self.chain.last_writable().ok_or(Broken::Request)?;
        memory.write(at, &[work.status as u8])?;
        if work.status == Status::IoError {
            self.counts.errors = self.counts.errors.wrapping_add(1);
        }
        // The length says how much was written from the first byte on; the status is the last one.
        let with_status = work.written.wrapping_add(1);
        let length = match with_status == self.chain.writable_bytes() {
            true => with_status,
            false => work.written,
        };
        queue.push(memory, self.chain.head(), length)
    }
}
