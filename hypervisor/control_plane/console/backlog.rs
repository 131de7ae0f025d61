//! What happened to VMs and has not been told yet, in bounded memory and at a bounded rate: a VM that makes more loses its own.

use super::{Event, What};
use crate::trace::RateLimit;
use heapless::Vec;
use types::ids::{MAX_VMS, VmId};

/// Most events that wait to be told.
const MAX_WAITING: usize = 64;
/// Most events of one VM among them.
const MAX_OF_ONE: usize = 32;
/// How many of its vCPUs a VM may have told of at once: enough for every vCPU of the largest guest to come and go.
const VCPU_BURST: u32 = 1024;
/// How many other events of a VM are told at once.
const LIFE_BURST: u32 = 64;
/// How often events of either kind are told after that.
const VCPU_INTERVAL_NS: u64 = 10_000_000;
const LIFE_INTERVAL_NS: u64 = 20_000_000;

/// The events of one VM.
#[derive(Debug)]
struct Share {
    waiting: usize,
    /// How many were lost since the last one was told.
    lost: u32,
    vcpus: RateLimit<VCPU_BURST, VCPU_INTERVAL_NS>,
    life: RateLimit<LIFE_BURST, LIFE_INTERVAL_NS>,
}

/// Events that wait to be told, oldest first.
#[derive(Debug)]
pub struct Backlog {
    events: Vec<Event, MAX_WAITING>,
    shares: [Share; MAX_VMS],
    /// The time of the newest one that was told.
    newest_ns: u64,
}

impl Share {
    const NEW: Self = Self {
        waiting: 0,
        lost: 0,
        vcpus: RateLimit::new(),
        life: RateLimit::new(),
    };

    const fn is_full(&self) -> bool {
        self.waiting >= MAX_OF_ONE
    }
}

impl Backlog {
    /// Makes an empty one.
    #[expect(clippy::new_without_default, reason = "a static wants a constant")]
    #[must_use]
    pub const fn new() -> Self {
        Self {
            events: Vec::new(),
            shares: [Share::NEW; MAX_VMS],
            newest_ns: 0,
        }
    }

    /// Adds an event; returns whether there is something new to tell.
    ///
    /// A single vCPU's is lost if its VM makes too many of them or there is no room. Any other takes the place of older ones, of
    /// its own VM if that has its share, else of the VM with the most.
    #[must_use = "it has to be told"]
    pub fn push(&mut self, event: Event) -> bool {
        let is_full = self.events.is_full();
        let Some(own) = self.shares.get_mut(event.vm.index()) else {
            return false;
        };
        let has_room = !is_full && !own.is_full();
        if event.what.is_frequent() && !(has_room && own.vcpus.allow(event.time_ns)) {
            own.lost = own.lost.saturating_add(1);
            return false;
        }
        if own.is_full() {
            // Two: of a VM that resets itself without end both resets and starts are told, each start after its reset.
            self.lose_oldest_of(event.vm);
            self.lose_oldest_of(event.vm);
        } else if is_full {
            self.lose_oldest_of(self.vm_with_most());
        }
        let own = event.vm;
        let is_added = self.events.push(event).is_ok();
        if let Some(own) = self.shares.get_mut(own.index()).filter(|_| is_added) {
            own.waiting = own.waiting.saturating_add(1);
        }
        is_added
    }

    /// Returns whether nothing waits.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Takes the oldest event that may be told now, and how many of its VM were lost before it. If none may, the error says from when
    /// on the first that waits may be told, if one waits; in nanoseconds.
    ///
    /// CPUs bring the events of their vCPUs a little late, and some wait: one that is older than what was told before it gets the time of
    /// that.
    pub fn pop(&mut self, now_ns: u64) -> Result<(Event, u32), Option<u64>> {
        // VMs that have to wait, a bit each, and until when.
        let (mut held, mut next_ns) = (0_u64, None);
        let mut place = None;
        for (index, event) in self.events.iter().enumerate() {
            let bit = 1_u64.rotate_left(event.vm.index() as u32);
            let Some(own) = self.shares.get_mut(event.vm.index()) else {
                continue;
            };
            if held & bit != 0 {
                continue;
            }
            if event.what.is_frequent() || own.life.allow(now_ns) {
                place = Some(index);
                break;
            }
            held |= bit;
            next_ns = next_ns.into_iter().chain([own.life.next_ns()]).min();
        }
        let mut event = place.and_then(|place| self.remove(place)).ok_or(next_ns)?;
        self.newest_ns = self.newest_ns.max(event.time_ns);
        event.time_ns = self.newest_ns;
        let own = self.shares.get_mut(event.vm.index());
        Ok((event, own.map_or(0, |own| core::mem::take(&mut own.lost))))
    }

    fn vm_with_most(&self) -> VmId {
        let with_most = (0..).zip(&self.shares).max_by_key(|(_, own)| own.waiting);
        VmId::new(with_most.map_or(0, |(vm, _)| vm))
    }

    fn lose_oldest_of(&mut self, vm: VmId) {
        let oldest = self.events.iter().position(|event| event.vm == vm);
        let lost = oldest.and_then(|place| self.remove(place));
        if let Some(own) = self.shares.get_mut(vm.index()).filter(|_| lost.is_some()) {
            own.lost = own.lost.saturating_add(1);
        }
    }

    fn remove(&mut self, place: usize) -> Option<Event> {
        let event = (place < self.events.len()).then(|| self.events.remove(place))?;
        if let Some(own) = self.shares.get_mut(event.vm.index()) {
            own.waiting = own.waiting.saturating_sub(1);
        }
        Some(event)
    }
}

impl What {
    /// Returns whether a guest makes thousands of these in a second, or another one comes soon: one is lost for itself.
    pub(super) const fn is_frequent(&self) -> bool {
        matches!(
            self,
            Self::VcpuOnline(_) | Self::VcpuOffline(_) | Self::Usage(_)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::ids::VcpuId;

    const ONLINE: What = What::VcpuOnline(VcpuId::new(0));
    const RESET: What = What::VmReset("guest");

    fn event(vm: u16, time_ns: u64, what: What) -> Event {
        let vm = VmId::new(vm);
        Event { time_ns, vm, what }
    }

    /// Takes all that may be told now: VMs, times and how many were lost.
    fn told(backlog: &mut Backlog, now_ns: u64) -> std::vec::Vec<(u16, u64, u32)> {
        core::iter::from_fn(|| backlog.pop(now_ns).ok())
            .map(|(event, lost)| (event.vm.index() as u16, event.time_ns, lost))
            .collect()
    }

    #[test]
    fn times_never_fall() {
        let mut backlog = Backlog::new();
        let pushed = [(5, 5), (3, 5), (7, 7), (7, 7), (6, 7)];
        for (number, (time_ns, _)) in (0..).zip(pushed) {
            assert!(backlog.push(event(0, time_ns, What::VcpuOnline(VcpuId::new(number)))));
        }
        // What was told already counts too.
        for (number, (_, expected_ns)) in (0..).zip(pushed) {
            let event = event(0, expected_ns, What::VcpuOnline(VcpuId::new(number)));
            assert_eq!(backlog.pop(0), Ok((event, 0)));
        }
        assert!(backlog.push(event(1, 1, What::VmStart)));
        assert_eq!(backlog.pop(0), Ok((event(1, 7, What::VmStart), 0)));
    }

    #[test]
    fn a_vms_events_keep_their_order_and_find_room_in_its_share_only() {
        let mut backlog = Backlog::new();
        for number in 0..32 {
            assert!(backlog.push(event(0, number, ONLINE)));
        }
        assert!(!backlog.push(event(0, 32, ONLINE)), "the share is full");
        // A VM's life has precedence over its oldest.
        assert!(backlog.push(event(0, 33, What::VmPaused)));
        assert!(backlog.push(event(1, 34, ONLINE)), "another has its own");
        let told = told(&mut backlog, 0);
        let times: std::vec::Vec<u64> = told.iter().map(|told| told.1).collect();
        let expected: std::vec::Vec<u64> = (2..32).chain([33, 34]).collect();
        assert_eq!(times, expected);
        assert_eq!(told[0], (0, 2, 3), "the next that is told says how many");
        assert!(told[1..].iter().all(|told| told.2 == 0));
        assert_eq!(backlog.pop(0), Err(None));
    }

    #[test]
    fn without_room_the_vm_with_the_most_loses_its_oldest() {
        let mut backlog = Backlog::new();
        for number in 0..32 {
            assert!(backlog.push(event(0, number, What::VmPaused)));
        }
        for number in 32..63 {
            assert!(backlog.push(event(1, number, What::VmPaused)));
        }
        assert!(backlog.push(event(2, 63, What::VmStart)));
        assert!(!backlog.push(event(2, 64, ONLINE)), "no room");
        assert!(backlog.push(event(2, 65, What::VmPaused)));
        let told = told(&mut backlog, 0);
        assert_eq!(told.len(), 64);
        assert_eq!(told[0], (0, 1, 1));
        assert_eq!(told[62..], [(2, 63, 1), (2, 65, 0)]);
    }

    #[test]
    fn vcpus_that_come_and_go_without_end_are_counted_instead_of_told() {
        let mut backlog = Backlog::new();
        let mut all = std::vec::Vec::new();
        for _ in 0..2000 {
            let _ = backlog.push(event(0, 1_000_000_000, ONLINE));
            all.extend(told(&mut backlog, 1_000_000_000));
        }
        assert_eq!(all.len(), 1024);
        assert!(backlog.push(event(0, 1_000_000_000, RESET)));
        let reset = told(&mut backlog, 1_000_000_000);
        assert_eq!(reset, [(0, 1_000_000_000, 976)]);
        assert!(backlog.push(event(0, 2_000_000_000, ONLINE)));
        assert_eq!(told(&mut backlog, 2_000_000_000), [(0, 2_000_000_000, 0)]);
    }

    #[test]
    fn a_vm_that_resets_itself_without_end_is_told_of_at_its_rate_and_delays_no_other() {
        let mut backlog = Backlog::new();
        let mut all = std::vec::Vec::new();
        // Two events each millisecond for a second.
        for ms in 0..1000 {
            let now_ns = ms * 1_000_000;
            assert!(backlog.push(event(0, now_ns, RESET)));
            assert!(backlog.push(event(0, now_ns, What::VmStart)));
            if ms % 100 == 50 {
                assert!(backlog.push(event(1, now_ns, What::VmPaused)));
            }
            let told = told(&mut backlog, now_ns);
            if ms % 100 == 50 {
                assert_eq!(told.last(), Some(&(1, now_ns, 0)));
            }
            all.extend(told);
        }
        let count = all.iter().filter(|told| told.0 == 0).count();
        assert!((110..=120).contains(&count), "{count}");
        // What waits is told in its time, and the caller is told when that is.
        let Err(Some(next_ns)) = backlog.pop(999_000_000) else {
            panic!("it is limited");
        };
        assert!((999_000_001..1_020_000_000).contains(&next_ns), "{next_ns}");
        assert_eq!(backlog.pop(next_ns - 1), Err(Some(next_ns)));
        all.extend(told(&mut backlog, next_ns));
        all.extend(told(&mut backlog, 2_000_000_000));
        let own = all.iter().filter(|told| told.0 == 0);
        let counted: usize = own.map(|told| 1 + told.2 as usize).sum();
        assert_eq!(counted, 2000, "each is told or counted");
    }
}
