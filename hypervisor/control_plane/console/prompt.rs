//! The prompt: lines that people type, and their answers in words.
//!
//! Neighbours: `editor` (keys to lines), `command` (lines to commands), `writing` (answers), `channel` (the same for programs).

use super::command::{self, Command};
use super::complete::Candidates;
use super::editor::{Fed, LINE_BYTES};
use super::error::{CommandError, ErrorKind};
use super::pending::Asker;
use super::reply::Reply;
use super::request::RequestId;
use super::sink::{Sinks, put};
use super::top::View;
use super::writing::Writing;
use super::{Console, HostPower, Mode, Port, Request, channel, too_long, too_many};

/// Returns the command that a line is as the answer to whether the host shall end; `None` if it is another one.
fn answer_to(power: HostPower, line: &str) -> Option<Result<Option<Command>, CommandError>> {
    match line {
        "yes" | "y" => Some(Ok(Some(Command::HostPower { power, force: true }))),
        "no" | "n" => Some(Ok(None)),
        _ => None,
    }
}

impl Console {
    /// Takes a key at the prompt.
    pub(super) fn prompt_key(&mut self, byte: u8, sinks: &mut Sinks<'_>) -> Option<Request> {
        match self.editor.feed(byte, sinks.terminal) {
            Fed::Nothing => {}
            Fed::Line(line) => return self.prompt_line(&line, sinks),
            Fed::TooLong => self.prompt_answer(Err(too_long(LINE_BYTES)), sinks),
            Fed::Abandoned => self.editor.redraw(sinks.terminal),
            Fed::Complete => {
                let found = Candidates::of(self.editor.head(), &self.names);
                self.editor.complete(&found, sinks.terminal);
            }
        }
        None
    }

    /// Acts on a line of the prompt.
    pub(super) fn prompt_line(&mut self, line: &str, sinks: &mut Sinks<'_>) -> Option<Request> {
        if line.trim_ascii_start().starts_with('{') {
            let (id, command) = channel::read_json(line.as_bytes(), &self.names);
            let request = self.json_request(Port::Terminal, &id, command, sinks);
            self.prompt_again(sinks);
            return request;
        }
        let answered = self.question.take();
        let answered = answered.and_then(|power| answer_to(power, line.trim_ascii()));
        let parsed = answered.unwrap_or_else(|| command::parse(line, &self.names));
        let command = match parsed {
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
            Command::Help(topic) => self.prompt_answer(Ok(Reply::Help(topic)), sinks),
            Command::Top => {
                self.mode = Mode::Top;
                self.view = View::start(sinks.terminal);
                return self.tick(0);
            }
            Command::Console { vm } => self.attach(vm, sinks.terminal),
            Command::JsonOff => self.prompt_answer(Ok(Reply::Done), sinks),
            Command::JsonOn => {
                self.mode = Mode::Json;
                let id = RequestId::default();
                self.json_answer(Port::Terminal, &id, Ok(Reply::Done), sinks);
            }
            command => {
                let power = match command {
                    Command::HostPower { power, .. } => Some(power),
                    _ => None,
                };
                match self.pending.insert(Asker::Prompt(power)) {
                    Ok(token) => return Some(Request { token, command }),
                    Err(_) => self.prompt_answer(Err(too_many()), sinks),
                }
            }
        }
        None
    }

    /// Answers a request of the prompt: a command that would end VMs with the question whether it shall.
    pub(super) fn prompt_reply(
        &mut self,
        power: Option<HostPower>,
        result: Result<Reply, CommandError>,
        sinks: &mut Sinks<'_>,
    ) {
        let question = |error: &CommandError| power.filter(|_| error.kind == ErrorKind::NeedsForce);
        let Some((power, error)) = result
            .as_ref()
            .err()
            .and_then(|error| Some((question(error)?, error)))
        else {
            return self.prompt_answer(result, sinks);
        };
        self.question = Some(power);
        put!(
            sinks.terminal,
            "{}\r\n{} all the same? yes or no\r\n",
            error.message,
            power.word()
        );
        self.prompt_again(sinks);
    }

    /// Shows an answer at the start of an empty line, then the prompt.
    pub(super) fn prompt_answer(
        &mut self,
        result: Result<Reply, CommandError>,
        sinks: &mut Sinks<'_>,
    ) {
        self.begin(Port::Terminal, sinks, |names, out| {
            Writing::text(result, names, out)
        });
        self.prompt_again(sinks);
    }

    /// Shows the prompt, unless it follows an answer that is still being written.
    pub(super) fn prompt_again(&self, sinks: &mut Sinks<'_>) {
        if !self.is_writing(Port::Terminal) {
            self.editor.redraw(sinks.terminal);
        }
    }
}
