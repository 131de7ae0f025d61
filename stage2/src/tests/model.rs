//! The reference: what is mapped, as a list of intervals.

use std::collections::BTreeMap;
use std::vec::Vec;

use crate::{Access, Attributes};

/// Guest start, guest end, host start, attributes.
pub(super) type Interval = (u64, u64, u64, Attributes);

#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    intervals: BTreeMap<u64, Interval>,
}

impl Model {
    pub(super) fn any_mapped(&self, start: u64, end: u64) -> bool {
        self.intervals
            .values()
            .any(|interval| interval.0 < end && start < interval.1)
    }

    pub(super) fn all_mapped(&self, start: u64, end: u64) -> bool {
        let covered: u64 = self
            .intervals
            .values()
            .map(|i| i.1.min(end).saturating_sub(i.0.max(start)))
            .sum();
        covered == end - start
    }

    pub(super) fn lookup(&self, address: u64) -> Option<(u64, Attributes)> {
        let (_, &(start, end, host, attributes)) = self.intervals.range(..=address).next_back()?;
        (address < end).then(|| (host + (address - start), attributes))
    }

    pub(super) fn map(&mut self, start: u64, end: u64, host: u64, attributes: Attributes) {
        self.intervals.insert(start, (start, end, host, attributes));
    }

    pub(super) fn unmap(&mut self, start: u64, end: u64) {
        self.cut(start);
        self.cut(end);
        self.intervals.retain(|&at, _| at < start || at >= end);
    }

    pub(super) fn protect(&mut self, start: u64, end: u64, access: Access) {
        self.cut(start);
        self.cut(end);
        for (_, interval) in self.intervals.range_mut(start..end) {
            interval.3.access = access;
        }
    }

    fn cut(&mut self, at: u64) {
        let Some((&start, interval)) = self.intervals.range_mut(..at).next_back() else {
            return;
        };
        let (_, end, host, attributes) = *interval;
        if at < end {
            interval.1 = at;
            self.map(at, end, host + (at - start), attributes);
        }
    }

    /// Lists the intervals, neighbours that continue each other joined.
    pub(super) fn joined(&self) -> Vec<Interval> {
        join(self.intervals.values().copied())
    }
}

/// Joins neighbours that continue each other.
pub(super) fn join(intervals: impl Iterator<Item = Interval>) -> Vec<Interval> {
    let mut joined: Vec<Interval> = Vec::new();
    for next in intervals {
        match joined.last_mut() {
            Some(last)
                if last.1 == next.0 && last.2 + (last.1 - last.0) == next.2 && last.3 == next.3 =>
            {
                last.1 = next.1;
            }
            _ => joined.push(next),
        }
    }
    joined
}
