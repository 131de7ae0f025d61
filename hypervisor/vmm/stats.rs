//! Counters of exits by reason.
