//! Has the image linked anew when its linker script changes, of which the compiler knows nothing.

fn main() {
    println!("cargo::rerun-if-changed=../linker/el2.ld");
}
