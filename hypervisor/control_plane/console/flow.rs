//! What the ports take, and when: each kind of output waits where it is made until its port has little enough to send.
//!
//! Neighbours: `outlet` (what waits there), `writing` (answers in rows).

use super::{
    Console, Mode, Port,
    names::Names,
    outlet::{COMMAND_BYTES, EVENT_BYTES, GUEST_BYTES, ROW_BYTES},
    pending::{Asker, Token},
    sink::{ByteSink, Sinks},
    writing::Writing,
};
use types::ids::VmId;

impl Console {
    /// Returns whether to take a guest's output now; otherwise it stays in that guest's UART, because the terminal shows this guest
    /// and has enough to send.
    #[inline]
    #[must_use]
    pub fn accepts_output(&self, vm: VmId, sinks: &Sinks<'_>) -> bool {
        !self.is_shown(vm)
            || sinks.terminal.waiting() < GUEST_BYTES && !self.is_writing(Port::Terminal)
    }

    /// Returns whether the ports where programs read events have room for one; until then it waits.
    #[must_use]
    pub fn accepts_events(&self, sinks: &Sinks<'_>) -> bool {
        let terminal = self.mode != Mode::Json || self.has_less(EVENT_BYTES, Port::Terminal, sinks);
        terminal && self.has_less(EVENT_BYTES, Port::Control, sinks)
    }

    /// Returns whether the port where a request was put has room for its answer; until then it waits.
    #[must_use]
    pub fn accepts_reply(&self, token: Token, sinks: &Sinks<'_>) -> bool {
        let port = match self.pending.asker(token) {
            Some(Asker::Json(port, _)) => *port,
            _ => Port::Terminal,
        };
        self.has_room(port, sinks)
    }

    /// Returns whether a port has room for the answer to its next command: it has not much to send, and writes no answer.
    #[must_use]
    pub fn has_room(&self, port: Port, sinks: &Sinks<'_>) -> bool {
        self.has_less(COMMAND_BYTES, port, sinks)
    }

    /// Returns whether the terminal has room for an event that a person reads.
    pub(super) fn may_notify(&self, sinks: &Sinks<'_>) -> bool {
        self.has_less(EVENT_BYTES, Port::Terminal, sinks)
    }

    #[inline(never)]
    fn has_less(&self, bytes: usize, port: Port, sinks: &Sinks<'_>) -> bool {
        let waiting = match port {
            Port::Terminal => sinks.terminal.waiting(),
            Port::Control => sinks.control.waiting(),
        };
        waiting <= bytes && !self.is_writing(port)
    }

    /// Returns whether an answer is being written at a port.
    #[inline]
    #[must_use]
    pub fn is_writing(&self, port: Port) -> bool {
        let writing = self.writing.get(port as usize);
        writing.is_some_and(Option::is_some)
    }

    /// Goes on with a port's answer by a row if one is being written there and the port has room; returns whether that was so.
    pub fn go_on(&mut self, port: Port, sinks: &mut Sinks<'_>) -> bool {
        sinks.of(port).waiting() <= ROW_BYTES && self.write_row(port, sinks)
    }

    fn write_row(&mut self, port: Port, sinks: &mut Sinks<'_>) -> bool {
        let Some(writing) = self.writing.get_mut(port as usize) else {
            return false;
        };
        let Some(rows) = writing else { return false };
        let out = sinks.of(port);
        if !rows.go_on(&self.names, out) {
            *writing = None;
            if port == Port::Terminal && self.mode == Mode::Prompt {
                self.editor.redraw(out);
            }
        }
        true
    }

    /// Begins something new at a port; the rest is written later. What is being written there ends first, for which callers wait.
    pub(super) fn begin(
        &mut self,
        port: Port,
        sinks: &mut Sinks<'_>,
        write: impl FnOnce(&Names, &mut dyn ByteSink) -> Option<Writing>,
    ) {
        self.end_writing(port, sinks);
        let rest = write(&self.names, sinks.of(port));
        self.keep_writing(port, rest);
    }

    #[inline(never)]
    fn end_writing(&mut self, port: Port, sinks: &mut Sinks<'_>) {
        while self.write_row(port, sinks) {}
    }

    #[inline(never)]
    fn keep_writing(&mut self, port: Port, rest: Option<Writing>) {
        if let Some(writing) = self.writing.get_mut(port as usize) {
            *writing = rest;
        }
    }
}
