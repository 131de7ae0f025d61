//! Emulated devices: register reads and writes in, values and interrupt levels out.
