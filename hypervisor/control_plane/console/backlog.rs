//! Events on their way to the console: bounded, and what found no room is counted.

use super::{Event, What};
use heapless::Deque;
use types::ids::MAX_VMS;

/// Most events that wait to be told.
const MAX_WAITING: usize = 64;

/// Events that wait to be told, oldest first.
#[derive(Debug)]
pub struct Backlog {
    events: Deque<Event, MAX_WAITING>,
    /// The time of the newest one there has been.
    newest_ns: u64,
    /// How many of each VM found no room since its last one was told.
    lost: [u32; MAX_VMS],
}

impl Backlog {
    /// Makes an empty one.
    #[expect(clippy::new_without_default, reason = "a static wants a constant")]
    #[must_use]
    pub const fn new() -> Self {
        Self {
            events: Deque::new(),
            newest_ns: 0,
            lost: [0; MAX_VMS],
        }
    }

    /// Adds an event. When there is no room a single vCPU's is lost, and any other takes the place of the oldest.
    ///
    /// CPUs bring the events of their vCPUs a little late: one that is older than what came before it gets the time of that.
    pub fn push(&mut self, mut event: Event) {
        self.newest_ns = self.newest_ns.max(event.time_ns);
        event.time_ns = self.newest_ns;
        let lost = match self.events.is_full() {
            true if event.what.is_frequent() => Some(event.vm),
            full => {
                let oldest = full.then(|| self.events.pop_front()).flatten();
                let _has_room = self.events.push_back(event);
                oldest.map(|event| event.vm)
            }
        };
        if let Some(lost) = lost.and_then(|vm| self.lost.get_mut(vm.index())) {
            *lost = lost.saturating_add(1);
        }
    }

    /// Takes the oldest event, and how many of its VM were lost.
    pub fn pop(&mut self) -> Option<(Event, u32)> {
        let event = self.events.pop_front()?;
        let lost = self.lost.get_mut(event.vm.index());
        Some((event, lost.map_or(0, core::mem::take)))
    }
}

impl What {
    /// Returns whether a guest makes thousands of them a second: then they are counted instead of told.
    pub(super) const fn is_frequent(&self) -> bool {
        matches!(self, Self::VcpuOnline(_) | Self::VcpuOffline(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::ids::{VcpuId, VmId};

    fn event(vm: u16, number: u64, what: What) -> Event {
        Event {
            time_ns: number,
            vm: VmId::new(vm),
            what,
        }
    }

    #[test]
    fn times_never_fall() {
        let mut backlog = Backlog::new();
        let pushed = [(5, 5), (3, 5), (7, 7), (7, 7), (6, 7)];
        for (number, (time_ns, _)) in (0..).zip(pushed) {
            backlog.push(event(0, time_ns, What::VcpuOnline(VcpuId::new(number))));
        }
        // What was told already counts too.
        for (number, (_, expected_ns)) in (0..).zip(pushed) {
            let event = event(0, expected_ns, What::VcpuOnline(VcpuId::new(number)));
            assert_eq!(backlog.pop(), Some((event, 0)));
        }
        backlog.push(event(1, 1, What::VmStart));
        assert_eq!(backlog.pop(), Some((event(1, 7, What::VmStart), 0)));
    }

    #[test]
    fn what_finds_no_room_is_counted_for_its_vm() {
        let online = || What::VcpuOnline(VcpuId::new(1));
        let mut backlog = Backlog::new();
        backlog.push(event(1, 0, What::VmStart));
        for number in 1..100 {
            backlog.push(event(0, number, online()));
        }
        backlog.push(event(1, 100, online()));
        // A VM's life has precedence over the oldest.
        backlog.push(event(1, 101, What::VmOff("guest", None)));
        backlog.push(event(9999, 102, What::VmPaused));
        for number in 2..64 {
            let lost = if number == 2 { 36 + 1 } else { 0 };
            assert_eq!(backlog.pop(), Some((event(0, number, online()), lost)));
        }
        // Its start and its vCPU's.
        assert_eq!(
            backlog.pop(),
            Some((event(1, 101, What::VmOff("guest", None)), 2))
        );
        assert_eq!(backlog.pop(), Some((event(9999, 102, What::VmPaused), 0)));
        assert_eq!(backlog.pop(), None);
        backlog.push(event(1, 103, What::VmStart));
        assert_eq!(backlog.pop(), Some((event(1, 103, What::VmStart), 0)));
    }
}
