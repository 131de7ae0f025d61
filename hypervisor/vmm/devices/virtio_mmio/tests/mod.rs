//! Queues and transports under drivers that are right, wrong, and racing with the device.

pub(super) mod driver;
mod hostile;
mod queues;
mod registers;
