//! Has the guests linked anew when their linker script changes, of which the compiler knows nothing.

fn main() {
    println!("cargo::rerun-if-changed=../../linker/guest.ld");
}
