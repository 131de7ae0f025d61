//! The operator's console: bytes in, [`Command`] values out; values in, text or JSON lines out.
//!
//! Two ports. On the terminal the escape key switches between a guest's console and the prompt; on the control channel, which
//! is the second UART where there is one, programs write JSON lines. Both give the same commands, and a command is answered by
//! its [`Token`] when its answer is known, so several can be under way. Guests, cables and people send anything: every buffer
//! here is bounded, and a line that cannot be understood costs one error.
//!
//! Neighbours: `mux` (guests on the terminal), `editor` and `command` (the prompt), `lines`, `request` and `json` (the control
//! channel), `reply` and `text` (answers). Commands are carried out elsewhere. `docs/console.md` is the operator's view.
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod backlog;
mod channel;
mod command;
mod complete;
mod editor;
mod error;
mod flow;
mod history;
mod json;
mod keys;
mod lines;
mod memory;
mod mux;
mod names;
mod outlet;
mod pending;
mod prompt;
mod reply;
mod request;
mod sink;
mod table;
#[cfg(test)]
mod terminal;
#[cfg(test)]
mod tests;
mod text;
mod top;
mod usage;
mod words;
mod writing;

pub use backlog::Backlog;
pub use command::{Command, HostPower, MAX_TIMEOUT_S, VmAction};
pub use editor::LINE_BYTES;
pub use error::{CommandError, ErrorKind};
pub use lines::JSON_LINE_BYTES;
pub use memory::{Ask, admit};
pub use outlet::{Left, Outlet, Pace, Transmit};
pub use pending::{MAX_PENDING, Token};
pub use reply::{
    DeviceRow, DiskRow, Event, HostReport, MemoryRow, MemoryUnit, MeterRow, NetRow, Reply,
    ResizeReport, Sample, StatsRow, VcpuRow, VmPage, VmRow, What,
};
pub use sink::{ByteSink, Sinks};
pub use usage::Topic;

use crate::resize::Origin;
use alloc::{format, string::String, vec::Vec};
use editor::Editor;
use lines::LineReader;
use mux::Mux;
use names::Names;
use pending::{Asker, Pending};
use request::RequestId;
use sink::put;
use top::View;
use types::ids::VmId;
use writing::Writing;

const PROMPT: &str = "bullpen> ";
const BELL: &[u8] = b"\x07";
const CTRL_C: u8 = 3;
/// Ends whatever colours a guest has left on the terminal (ECMA-48, SGR).
const PLAIN: &[u8] = b"\x1b[0m";

/// Where bytes come from and go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// The operator's terminal.
    Terminal,
    /// The control channel.
    Control,
}

/// The key that switches the terminal between a guest and the prompt: Ctrl with a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EscapeKey(u8);

impl EscapeKey {
    /// Ctrl-].
    pub const DEFAULT: Self = Self(0x1d);

    const fn name(self) -> char {
        (self.0 | 0x40) as char
    }
}

/// A command to carry out; answer it with [`Console::reply`].
#[must_use = "a client waits for the reply"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Names the request in the reply.
    pub token: Token,
    /// What to do; never [`Command::Help`], [`Command::Console`] or the JSON switches, which end here.
    pub command: Command,
}

/// What the terminal is for at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// It is the console of the multiplexer's current VM.
    Guest,
    /// It shows the prompt.
    Prompt,
    /// It shows what VMs and vCPUs take, again and again.
    Top,
    /// It carries JSON lines, like the control channel.
    Json,
}

/// The console with both its ports.
#[derive(Debug)]
pub struct Console {
    names: Names,
    escape: EscapeKey,
    mode: Mode,
    mux: Mux,
    editor: Editor,
    view: View,
    terminal_lines: LineReader,
    control_lines: LineReader,
    pending: Pending,
    /// The operator is asked whether to do this although VMs run.
    question: Option<HostPower>,
    /// The answers that are being written: the terminal's and the control channel's.
    writing: [Option<Writing>; 2],
}

impl Console {
    /// Makes a console at its prompt for the VMs with these names, in the order of their ids.
    #[must_use]
    pub fn new(names: Vec<String>, escape: EscapeKey) -> Self {
        let names = Names::new(names);
        Self {
            mux: Mux::new(names.count()),
            names,
            escape,
            mode: Mode::Prompt,
            editor: Editor::new(PROMPT),
            view: View::default(),
            terminal_lines: LineReader::new(),
            control_lines: LineReader::new(),
            pending: Pending::new(),
            question: None,
            writing: [None, None],
        }
    }

    /// Greets the operator and attaches the terminal to a VM, or shows the prompt.
    pub fn start(&mut self, attach: Option<VmId>, sinks: &mut Sinks<'_>) {
        let out = &mut *sinks.terminal;
        put!(
            out,
            "Bullpen {}: Ctrl-{} switches between",
            env!("CARGO_PKG_VERSION"),
            self.escape.name()
        );
        out.put(b" guest and Bullpen console, `help` lists its commands\r\n");
        match attach {
            Some(vm) => self.attach(vm, out),
            None => self.editor.redraw(out),
        }
    }

    /// Returns whether to take a byte from the terminal now; otherwise it waits in the UART, because a guest does not read.
    #[must_use]
    pub fn accepts_input(&mut self, now_ns: u64) -> bool {
        self.mode != Mode::Guest || self.mux.accepts_input(now_ns)
    }

    /// Returns whether the terminal shows single vCPUs' events: at the prompt and as JSON, but not inside a guest.
    #[must_use]
    pub fn tells_events(&self) -> bool {
        matches!(self.mode, Mode::Prompt | Mode::Json)
    }

    /// Takes bytes from a port: one of the terminal's, and of the control channel's those of one line, its end included.
    #[inline(never)]
    pub fn input(&mut self, port: Port, bytes: &[u8], sinks: &mut Sinks<'_>) -> Option<Request> {
        let &byte = bytes.first()?;
        match (port, self.mode) {
            (Port::Control, _) => self.json_bytes(port, bytes, sinks),
            (Port::Terminal, _) if byte == self.escape.0 => {
                self.switch(sinks);
                None
            }
            (Port::Terminal, Mode::Json) => self.json_bytes(port, bytes, sinks),
            (Port::Terminal, Mode::Guest) => {
                self.mux.type_byte(byte);
                None
            }
            (Port::Terminal, Mode::Prompt) => self.prompt_key(byte, sinks),
            (Port::Terminal, Mode::Top) => {
                if matches!(byte, b'q' | b'Q' | CTRL_C) {
                    self.switch(sinks);
                }
                None
            }
        }
    }

    /// Returns when [`Console::tick`] has something to do, in nanoseconds since the hypervisor's start.
    #[must_use]
    pub fn due_ns(&self) -> Option<u64> {
        self.view.due_ns().filter(|_| self.mode == Mode::Top)
    }

    /// Asks for what the live view shows next, if it is time for that.
    pub fn tick(&mut self, now_ns: u64) -> Option<Request> {
        self.due_ns().filter(|due_ns| *due_ns <= now_ns)?;
        let token = self.pending.insert(Asker::View).ok();
        self.view.asked(token.is_some(), now_ns);
        let command = Command::Top;
        token.map(|token| Request { token, command })
    }

    /// Returns the VM for which typed bytes wait, if any do.
    #[must_use]
    pub fn guest_input_waits(&self) -> Option<VmId> {
        self.mux.waits()
    }

    /// Takes the next typed byte for a VM; asked for when its UART has room.
    #[must_use]
    pub fn pop_guest_input(&mut self, vm: VmId) -> Option<u8> {
        self.mux.pop_typed(vm)
    }

    /// Shows what a guest has sent, or keeps the end of it until the terminal is attached to that guest.
    pub fn guest_output(&mut self, vm: VmId, bytes: &[u8], sinks: &mut Sinks<'_>) {
        if self.is_shown(vm) {
            sinks.terminal.put(bytes);
        } else {
            self.mux.keep(vm, bytes);
        }
    }

    #[inline]
    fn is_shown(&self, vm: VmId) -> bool {
        self.mode == Mode::Guest && self.mux.current() == Some(vm)
    }

    /// Answers a request where it was asked; a token that was answered before is ignored.
    pub fn reply(
        &mut self,
        token: Token,
        result: Result<Reply, CommandError>,
        sinks: &mut Sinks<'_>,
    ) {
        match self.pending.take(token) {
            None => {}
            Some(Asker::Json(port, id)) => self.json_answer(port, &id, result, sinks),
            Some(Asker::View) => {
                if let (Mode::Top, Ok(Reply::Top(sample))) = (self.mode, result) {
                    self.view.show(sample, &self.names, sinks.terminal);
                }
            }
            Some(Asker::Prompt(power)) => match self.mode {
                // As much of it as a line holds.
                Mode::Top => drop(Writing::text(result, &self.names, self.view.notice())),
                Mode::Prompt => {
                    self.begin(Port::Terminal, sinks, |_, _| None);
                    self.editor.make_way(sinks.terminal);
                    self.prompt_reply(power, result, sinks);
                }
                Mode::Guest => self.begin(Port::Terminal, sinks, |names, out| {
                    out.put(b"\r\n[bullpen] ");
                    Writing::text(result, names, out)
                }),
                Mode::Json => {
                    self.json_answer(Port::Terminal, &RequestId::default(), result, sinks)
                }
            },
        }
    }

    /// Tells an event, before which `lost` of its VM were not told: a line on the control channel, and a notice at the prompt.
    pub fn event(&mut self, event: &Event, lost: u32, sinks: &mut Sinks<'_>) {
        let gone = matches!(event.what, What::VmOff(..) | What::VmReset(_));
        if (gone || event.what == What::VmStart) && self.mux.current() == Some(event.vm) {
            self.mux.forget_typed();
        }
        let line =
            |names: &Names, out: &mut dyn ByteSink| Writing::json_event(event, lost, names, out);
        self.begin(Port::Control, sinks, line);
        match self.mode {
            Mode::Json => self.begin(Port::Terminal, sinks, line),
            Mode::Prompt if is_answered(&event.what) => {}
            // A person reads slower than that, and nothing waits for a terminal that has stopped.
            Mode::Prompt | Mode::Guest if !self.may_notify(sinks) => {}
            Mode::Prompt => {
                self.editor.make_way(sinks.terminal);
                self.begin(Port::Terminal, sinks, |names, out| {
                    Writing::text_event(event, names, out)
                });
                self.prompt_again(sinks);
            }
            Mode::Guest if gone && self.mux.current() == Some(event.vm) => {
                self.begin(Port::Terminal, sinks, |names, out| {
                    out.put(b"\r\n[bullpen] ");
                    Writing::text_event(event, names, out)
                });
            }
            Mode::Top if event.what.is_frequent() || is_answered(&event.what) => {}
            Mode::Top => drop(Writing::text_event(event, &self.names, self.view.notice())),
            Mode::Guest => {}
        }
    }

    /// Acts on the escape key.
    fn switch(&mut self, sinks: &mut Sinks<'_>) {
        let out = &mut *sinks.terminal;
        match (self.mode, self.mux.current()) {
            (Mode::Prompt, Some(vm)) => {
                self.editor.make_way(out);
                self.attach(vm, out);
            }
            (Mode::Prompt, None) => out.put(BELL),
            (Mode::Guest | Mode::Json | Mode::Top, _) => {
                self.mode = Mode::Prompt;
                self.terminal_lines.forget();
                out.put(PLAIN);
                out.put(b"\r\n");
                self.editor.redraw(out);
            }
        }
    }

    fn attach(&mut self, vm: VmId, out: &mut dyn ByteSink) {
        self.mode = Mode::Guest;
        self.editor.forget_line();
        let (name, key) = (self.names.of(vm), self.escape.name());
        put!(out, "[{name}: Ctrl-{key} for the Bullpen console]\r\n");
        self.mux.show(vm, out);
    }
}

/// Returns whether the operator gets the same as a reply, or only programs are told.
fn is_answered(what: &What) -> bool {
    match what {
        What::ResizeDone(resize) => resize.report.origin == Origin::Operator,
        What::Usage(_) => true,
        _ => false,
    }
}

fn too_long(most: usize) -> CommandError {
    let message = format!("a line has at most {most} bytes; nothing was done");
    CommandError::new(ErrorKind::TooLong, message)
}

fn too_many() -> CommandError {
    let message = format!("{MAX_PENDING} requests wait for their replies already");
    CommandError::new(ErrorKind::Busy, message)
}
