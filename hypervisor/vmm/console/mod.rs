//! The operator's console: bytes in, `Command` values out; values in, text or JSON lines out.
