//! Randomness for guests' first moments.
//!
//! A ChaCha20 generator, seeded with what the boot loader gave (`rng-seed`)
//! and the counter. Each guest start draws from it, so no two starts get the same seeds.

use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use spin::Once;
use vmm::sync::FairMutex;

use crate::timer;

static GENERATOR: Once<FairMutex<ChaCha20Rng>> = Once::new();

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
