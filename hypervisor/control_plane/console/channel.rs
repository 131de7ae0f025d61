//! JSON lines at either port: requests read and answered.
//!
//! Neighbours: `lines` and `request` (the way in), `json` (the way out), `prompt` (the same for people).

use super::command::{self, Command};
use super::editor;
use super::error::{CommandError, ErrorKind};
use super::lines::{Fetched, JSON_LINE_BYTES};
use super::names::Names;
use super::pending::Asker;
use super::reply::Reply;
use super::request::{self, RequestId};
use super::sink::Sinks;
use super::writing::Writing;
use super::{Console, Mode, Port, Request, too_long, too_many};
use types::ids::VmId;

impl Console {
    pub(super) fn json_bytes(
        &mut self,
        port: Port,
        bytes: &[u8],
        sinks: &mut Sinks<'_>,
    ) -> Option<Request> {
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
    pub(super) fn json_request(
        &mut self,
        port: Port,
        id: &RequestId,
        command: Result<Command, CommandError>,
        sinks: &mut Sinks<'_>,
    ) -> Option<Request> {
        let answer = match command {
            Err(error) => Err(error),
            Ok(Command::Help(topic)) => Ok(Reply::Help(topic)),
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
            Mode::Prompt | Mode::Guest | Mode::Top => {
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

    pub(super) fn json_answer(
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
pub(super) fn read_json(line: &[u8], names: &Names) -> (RequestId, Result<Command, CommandError>) {
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
