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
mod command;
mod editor;
mod error;
mod flow;
mod json;
mod keys;
mod lines;
mod mux;
mod names;
mod outlet;
mod pending;
mod reply;
mod request;
mod sink;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod writing;

pub use backlog::Backlog;
pub use command::{Command, MAX_TIMEOUT_S, USAGE, Usage, VmAction};
pub use editor::LINE_BYTES;
pub use error::{CommandError, ErrorKind};
pub use lines::JSON_LINE_BYTES;
pub use outlet::{Left, Outlet, Pace, Transmit};
pub use pending::{MAX_PENDING, Token};
pub use reply::{
    DeviceRow, DiskRow, Event, HostReport, Reply, ResizeReport, StatsRow, VcpuRow, VmRow, What,
};
pub use sink::{ByteSink, Sinks};

use crate::resize::Origin;
use alloc::{format, string::String, vec::Vec};
use editor::{Editor, Fed};
use lines::{Fetched, LineReader};
use mux::Mux;
use names::Names;
use pending::{Asker, Pending};
use request::RequestId;
use sink::put;
use types::ids::VmId;
use writing::Writing;

const PROMPT: &str = "bullpen> ";
const BELL: &[u8] = b"\x07";
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
#[must_use = "somebody waits for the reply"]
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
    terminal_lines: LineReader,
    control_lines: LineReader,
    pending: Pending,
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
            terminal_lines: LineReader::new(),
            control_lines: LineReader::new(),
            pending: Pending::new(),
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
        self.mode != Mode::Guest
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
            (Port::Terminal, Mode::Prompt) => match self.editor.feed(byte, sinks.terminal) {
                Fed::Nothing => None,
                Fed::Line(line) => self.prompt_line(&line, sinks),
                Fed::TooLong => {
                    self.prompt_answer(Err(too_long(LINE_BYTES)), sinks);
                    None
                }
                Fed::Abandoned => {
                    self.editor.redraw(sinks.terminal);
                    None
                }
            },
        }
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
            Some(Asker::Prompt) => match self.mode {
                Mode::Prompt => {
                    self.begin(Port::Terminal, sinks, |_, _| None);
                    self.editor.make_way(sinks.terminal);
                    self.prompt_answer(result, sinks);
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
            (Mode::Guest | Mode::Json, _) => {
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

    /// Acts on a line of the prompt.
    fn prompt_line(&mut self, line: &str, sinks: &mut Sinks<'_>) -> Option<Request> {
        if line.trim_ascii_start().starts_with('{') {
            let (id, command) = read_json(line.as_bytes(), &self.names);
            let request = self.json_request(Port::Terminal, &id, command, sinks);
            self.prompt_again(sinks);
            return request;
        }
        let command = match command::parse(line, &self.names) {
            Ok(Some(command)) => command,
            Ok(None) => {
                self.editor.redraw(sinks.terminal);
                return None;
            }
            Err(error) => {
                self.prompt_answer(Err(error), sinks);
                return None;
            }
        };
        match command {
            Command::Help => self.prompt_answer(Ok(Reply::Help), sinks),
            Command::Console { vm } => self.attach(vm, sinks.terminal),
            Command::JsonOff => self.prompt_answer(Ok(Reply::Done), sinks),
            Command::JsonOn => {
                self.mode = Mode::Json;
                let id = RequestId::default();
                self.json_answer(Port::Terminal, &id, Ok(Reply::Done), sinks);
            }
            command => match self.pending.insert(Asker::Prompt) {
                Ok(token) => return Some(Request { token, command }),
                Err(_) => self.prompt_answer(Err(too_many()), sinks),
            },
        }
        None
    }

    /// Shows an answer at the start of an empty line, then the prompt.
    fn prompt_answer(&mut self, result: Result<Reply, CommandError>, sinks: &mut Sinks<'_>) {
        self.begin(Port::Terminal, sinks, |names, out| {
            Writing::text(result, names, out)
        });
        self.prompt_again(sinks);
    }

    /// Shows the prompt, unless it follows an answer that is still being written.
    fn prompt_again(&self, sinks: &mut Sinks<'_>) {
        if !self.is_writing(Port::Terminal) {
            self.editor.redraw(sinks.terminal);
        }
    }

    fn json_bytes(&mut self, port: Port, bytes: &[u8], sinks: &mut Sinks<'_>) -> Option<Request> {
        let reader = match port {
            Port::Terminal => &mut self.terminal_lines,
            Port::Control => &mut self.control_lines,
        };
        let (id, command) = match reader.feed(bytes) {
            Fetched::Nothing => return None,
            Fetched::Line(line) => read_json(line, &self.names),
            Fetched::TooLong => (RequestId::default(), Err(too_long(JSON_LINE_BYTES))),
        };
        self.json_request(port, &id, command, sinks)
    }

    /// Acts on a line of JSON: answers it, or returns the request that it holds.
    fn json_request(
        &mut self,
        port: Port,
        id: &RequestId,
        command: Result<Command, CommandError>,
        sinks: &mut Sinks<'_>,
    ) -> Option<Request> {
        let answer = match command {
            Err(error) => Err(error),
            Ok(Command::Help) => Ok(Reply::Help),
            Ok(Command::Console { vm }) => self.attach_by_json(vm, sinks),
            Ok(command @ (Command::JsonOn | Command::JsonOff)) => {
                return self.json_switch(port, id, command, sinks);
            }
            Ok(command) => match self.pending.insert(Asker::Json(port, id.clone())) {
                Ok(token) => return Some(Request { token, command }),
                Err(_) => Err(too_many()),
            },
        };
        self.json_answer(port, id, answer, sinks);
        None
    }

    /// Turns the terminal to a VM for a program; a terminal that carries JSON itself stays as it is.
    fn attach_by_json(&mut self, vm: VmId, sinks: &mut Sinks<'_>) -> Result<Reply, CommandError> {
        match self.mode {
            Mode::Json => {
                let message = "the terminal carries JSON; `json off` first";
                Err(CommandError::new(ErrorKind::WrongState, message))
            }
            _ if !self.has_room(Port::Terminal, sinks) => {
                let message = "the terminal is behind";
                Err(CommandError::new(ErrorKind::Busy, message))
            }
            Mode::Prompt | Mode::Guest => {
                sinks.terminal.put(b"\r\n");
                self.attach(vm, sinks.terminal);
                Ok(Reply::Attached(vm))
            }
        }
    }

    /// Switches the terminal between prompt and JSON; the answer comes in JSON, since JSON asked.
    fn json_switch(
        &mut self,
        port: Port,
        id: &RequestId,
        command: Command,
        sinks: &mut Sinks<'_>,
    ) -> Option<Request> {
        if port == Port::Control {
            let message = "the control channel always carries JSON";
            let error = CommandError::new(ErrorKind::Unsupported, message);
            self.json_answer(port, id, Err(error), sinks);
            return None;
        }
        self.json_answer(port, id, Ok(Reply::Done), sinks);
        let before = self.mode;
        self.mode = if command == Command::JsonOn {
            Mode::Json
        } else {
            Mode::Prompt
        };
        if before == Mode::Json && self.mode == Mode::Prompt {
            self.editor.redraw(sinks.terminal);
        }
        None
    }

    fn json_answer(
        &mut self,
        port: Port,
        id: &RequestId,
        result: Result<Reply, CommandError>,
        sinks: &mut Sinks<'_>,
    ) {
        if port == Port::Terminal && self.mode == Mode::Prompt {
            self.begin(port, sinks, |_, _| None);
            self.editor.make_way(sinks.terminal);
        }
        self.begin(port, sinks, |names, out| {
            Writing::json(id, result, names, out)
        });
    }
}

/// Reads a line of JSON: the id of its answer, and the command.
fn read_json(line: &[u8], names: &Names) -> (RequestId, Result<Command, CommandError>) {
    let mut room = editor::Line::new();
    let (id, command) = match request::parse(line, &mut room) {
        Ok(request) => (request.id, request.command),
        Err(mistake) => (RequestId::default(), Err((ErrorKind::BadJson, mistake))),
    };
    let command = command
        .map_err(|(kind, mistake)| CommandError::new(kind, mistake))
        .and_then(|command| command::parse(command, names))
        .and_then(|command| {
            let message = "the command is empty; `help` lists them";
            command.ok_or_else(|| CommandError::new(ErrorKind::UnknownCommand, message))
        });
    (id, command)
}

/// Returns whether the operator gets the same as a reply.
fn is_answered(what: &What) -> bool {
    matches!(what, What::ResizeDone(resize) if resize.report.origin == Origin::Operator)
}

fn too_long(most: usize) -> CommandError {
    let message = format!("a line has at most {most} bytes; nothing was done");
    CommandError::new(ErrorKind::TooLong, message)
}

fn too_many() -> CommandError {
    let message = format!("{MAX_PENDING} requests wait for their replies already");
    CommandError::new(ErrorKind::Busy, message)
}
