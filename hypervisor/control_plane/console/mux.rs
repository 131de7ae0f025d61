//! Guests on the operator's terminal: whose output is shown, what the others said meanwhile, and where typed bytes wait.
//!
//! Only the attached VM writes to the terminal. Of every other VM the last [`KEPT_BYTES`] are kept and shown when it is
//! attached. Typed bytes wait in a bounded queue until the guest's UART has room; when the queue is full the caller leaves
//! further bytes in the host's UART, so that a paste loses nothing, but not for ever: a guest that does not
//! read must not lock the operator out of the escape key.

use super::sink::{ByteSink, put};
use alloc::{collections::VecDeque, vec::Vec};
use types::ids::VmId;

/// How much is kept of a VM's output while it is not shown.
pub(super) const KEPT_BYTES: usize = 4096;
/// How many typed bytes wait for a guest.
const TYPED_BYTES: usize = 512;
/// How long a full queue keeps input waiting before input is thrown away to find the escape key.
const PATIENCE_NS: u64 = 250_000_000;

/// The guests' share of the terminal.
#[derive(Debug)]
pub(super) struct Mux {
    /// The VM that typed bytes go to while the terminal is a guest's, and that the escape key returns to.
    current: Option<VmId>,
    kept: Vec<Kept>,
    typed: VecDeque<u8>,
    full_since_ns: Option<u64>,
}

/// The end of a VM's output that has not been shown.
#[derive(Debug, Default)]
struct Kept {
    bytes: VecDeque<u8>,
    dropped: u64,
}

impl Mux {
    pub(super) fn new(vms: usize) -> Self {
        let kept = (0..vms)
            .map(|_| Kept {
                bytes: VecDeque::with_capacity(KEPT_BYTES),
                dropped: 0,
            })
            .collect();
        Self {
            current: None,
            kept,
            typed: VecDeque::with_capacity(TYPED_BYTES),
            full_since_ns: None,
        }
    }

    /// Returns the VM that the terminal shows or will show after the escape key.
    pub(super) const fn current(&self) -> Option<VmId> {
        self.current
    }

    /// Turns the terminal to a VM and shows what it said meanwhile.
    pub(super) fn show(&mut self, vm: VmId, out: &mut dyn ByteSink) {
        if self.current != Some(vm) {
            self.forget_typed();
        }
        self.current = Some(vm);
        let Some(kept) = self.kept.get_mut(vm.index()) else {
            return;
        };
        if kept.dropped != 0 {
            put!(out, "[... {} bytes not kept ...]\r\n", kept.dropped);
        }
        let (front, back) = kept.bytes.as_slices();
        out.put(front);
        out.put(back);
        kept.bytes.clear();
        kept.dropped = 0;
    }

    /// Keeps output of a VM that is not shown.
    pub(super) fn keep(&mut self, vm: VmId, bytes: &[u8]) {
        let Some(kept) = self.kept.get_mut(vm.index()) else {
            return;
        };
        for &byte in bytes {
            if kept.bytes.len() >= KEPT_BYTES {
                kept.bytes.pop_front();
                kept.dropped = kept.dropped.saturating_add(1);
            }
            kept.bytes.push_back(byte);
        }
    }

    /// Keeps a typed byte for the current VM; without room it is lost.
    pub(super) fn type_byte(&mut self, byte: u8) {
        if self.typed.len() < TYPED_BYTES {
            self.typed.push_back(byte);
        }
    }

    /// Returns whether to take another byte from the terminal at this time.
    pub(super) fn accepts_input(&mut self, now_ns: u64) -> bool {
        if self.typed.len() < TYPED_BYTES {
            self.full_since_ns = None;
            return true;
        }
        let since_ns = *self.full_since_ns.get_or_insert(now_ns);
        now_ns.saturating_sub(since_ns) >= PATIENCE_NS
    }

    /// Returns the VM for which typed bytes wait.
    pub(super) fn waits(&self) -> Option<VmId> {
        if self.typed.is_empty() {
            None
        } else {
            self.current
        }
    }

    /// Takes the next typed byte for a VM.
    pub(super) fn pop_typed(&mut self, vm: VmId) -> Option<u8> {
        if self.current == Some(vm) {
            self.typed.pop_front()
        } else {
            None
        }
    }

    /// Drops what was typed for the current VM.
    pub(super) fn forget_typed(&mut self) {
        self.typed.clear();
        self.full_since_ns = None;
    }
}
