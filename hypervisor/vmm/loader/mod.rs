//! Kernel images and where they go in a guest's memory.
