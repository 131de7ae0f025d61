//! The commands a person types.
#![forbid(unsafe_code)]

fn main() {}
