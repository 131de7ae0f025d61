//! Randomness for guests' first moments, and the date they start with.
//!
//! A ChaCha20 generator, seeded with what the boot loader gave (`rng-seed`)
//! and the counter. Each guest start draws from it, so no two starts get the same seeds.

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use spin::Once;
use vmm::sync::FairMutex;

use crate::{clock, timer};
use core::sync::atomic::{AtomicU64, Ordering};

static GENERATOR: Once<FairMutex<ChaCha20Rng>> = Once::new();
/// Seconds since 1970 when EL2 started, from the machine's clock.
static EPOCH_S: AtomicU64 = AtomicU64::new(0);

/// Seeds the generator.
pub(crate) fn start(rng_seed: &[u8], kaslr_seed: Option<u64>) {
    let mut seed = [0_u8; 32];
    let counter = timer::now().to_le_bytes();
    let kaslr = kaslr_seed.unwrap_or(0).to_le_bytes();
    for (index, byte) in rng_seed.iter().chain(&kaslr).chain(&counter).enumerate() {
        let at = &mut seed[index % 32];
        *at = at.rotate_left(3) ^ byte;
    }
    GENERATOR.call_once(|| FairMutex::new(ChaCha20Rng::from_seed(seed)));
}

/// Draws 32 bytes.
pub(crate) fn bytes() -> [u8; 32] {
    let mut bytes = [0; 32];
    if let Some(generator) = GENERATOR.get() {
        generator.lock().fill_bytes(&mut bytes);
    }
    bytes
}

/// Draws a number.
pub(crate) fn word() -> u64 {
    GENERATOR
        .get()
        .map_or(0, |generator| generator.lock().next_u64())
}

/// Says what the machine's clock shows.
pub(crate) fn set_wall_clock_s(seconds: u64) {
    EPOCH_S.store(
        seconds.saturating_sub(clock::now_ns() / 1_000_000_000),
        Ordering::Relaxed,
    );
}

/// Returns seconds since 1970 when EL2 started.
pub(crate) fn wall_clock_s() -> u32 {
    EPOCH_S.load(Ordering::Relaxed) as u32
}
