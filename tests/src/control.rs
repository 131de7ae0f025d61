//! The control channel: commands and replies as JSON lines, and events as they happen.

use crate::console::Console;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What a refused command says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of error, for programs.
    pub kind: String,
    /// The message, for people.
    pub message: String,
}

/// A client of the control channel.
pub struct Control {
    line: Console,
    next_id: u64,
    events: Vec<Value>,
    /// Events before this have been expected already.
    seen: usize,
    /// Whether the machine is known to listen.
    greeted: bool,
    /// Whether firmware may have written on the line, of which nothing of EL2's has been read yet.
    after_firmware: bool,
}

impl Control {
    /// Makes a client that talks over this line.
    #[must_use]
    pub fn new(line: Console) -> Self {
        Self {
            line,
            next_id: 1,
            events: Vec::new(),
            seen: 0,
            greeted: true,
            after_firmware: false,
        }
    }

    /// Makes a client of a machine that boots: it makes sure that EL2 listens before it sends its first command.
    #[must_use]
    pub fn of_a_booting_machine(line: Console) -> Self {
        Self {
            greeted: false,
            after_firmware: true,
            ..Self::new(line)
        }
    }

    /// Waits until the machine answers on this line; what is sent before its UART is set up is lost in part.
    ///
    /// # Panics
    /// If it never answers.
    fn greet(&mut self) {
        self.greeted = true;
        const TRIES: u32 = 120;
        const PAUSE: Duration = Duration::from_millis(500);
        let first = self.next_id;
        for _ in 0..TRIES {
            // Ends whatever half a line has arrived.
            self.line.send("\n");
            let last = self.send("vm list");
            let mut deadline = Instant::now() + PAUSE;
            while let Some(message) = self.message(deadline) {
                let id = message["id"].as_u64();
                if message.get("event").is_some() {
                    self.events.push(message);
                } else if id == Some(last) {
                    return;
                } else if id.is_some_and(|id| id >= first) {
                    // It listens, and is slow: the others are answered too.
                    deadline = Instant::now() + PAUSE * TRIES;
                }
            }
        }
        panic!("the control channel does not answer{}", self.line.tail());
    }

    /// Sends a command without waiting; returns its id.
    pub fn send(&mut self, command: &str) -> u64 {
        if !self.greeted {
            self.greet();
        }
        let id = self.next_id;
        self.next_id += 1;
        let request = json!({ "id": id, "command": command });
        self.line.send(&format!("{request}\n"));
        id
    }

    /// Waits for the reply to a command that was sent.
    ///
    /// # Errors
    /// The refusal, when the machine replies with one.
    ///
    /// # Panics
    /// If there is no reply in time, or a line that is not the channel's.
    pub fn reply(&mut self, id: u64, timeout: Duration) -> Result<Value, Refusal> {
        let deadline = Instant::now() + timeout;
        loop {
            let Some(message) = self.message(deadline) else {
                panic!("no reply to request {id}{}", self.line.tail());
            };
            if message.get("event").is_some() {
                self.events.push(message);
            } else if message["id"] == id {
                return result(&message);
            }
        }
    }

    /// Waits for the replies to several commands, in whatever order they come.
    ///
    /// # Panics
    /// If one is missing in time, or there twice.
    pub fn replies(&mut self, ids: &[u64], timeout: Duration) -> Vec<Result<Value, Refusal>> {
        let deadline = Instant::now() + timeout;
        let mut missing = ids.to_vec();
        let mut replies = Vec::new();
        while !missing.is_empty() {
            let Some(message) = self.message(deadline) else {
                panic!("no reply to requests {missing:?}{}", self.line.tail());
            };
            if message.get("event").is_some() {
                self.events.push(message);
                continue;
            }
            let place = missing.iter().position(|id| message["id"] == *id);
            let place = place.unwrap_or_else(|| panic!("nobody waits for {message}"));
            missing.swap_remove(place);
            replies.push(result(&message));
        }
        replies
    }

    /// Sends bytes that need not be a request.
    ///
    /// # Panics
    /// If the machine is gone.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        if !self.greeted {
            self.greet();
        }
        self.line.send_bytes(bytes);
    }

    /// Waits for the reply to something that was no request.
    ///
    /// # Panics
    /// If there is no reply in time, or it is not a refusal.
    pub fn refusal(&mut self, timeout: Duration) -> Refusal {
        let deadline = Instant::now() + timeout;
        loop {
            let Some(message) = self.message(deadline) else {
                panic!("nothing is refused{}", self.line.tail());
            };
            if message.get("event").is_some() {
                self.events.push(message);
            } else if message["id"].is_null() {
                return result(&message).expect_err("it was no request");
            }
        }
    }

    /// Sends a command and waits for its reply.
    ///
    /// # Errors
    /// As [`Control::reply`].
    pub fn command(&mut self, command: &str, timeout: Duration) -> Result<Value, Refusal> {
        let id = self.send(command);
        self.reply(id, timeout)
    }

    /// Waits for an event of this name of one VM; returns it. Events are taken in order, and once.
    ///
    /// # Panics
    /// If it does not come in time.
    pub fn event(&mut self, name: &str, vm: &str, timeout: Duration) -> Value {
        let deadline = Instant::now() + timeout;
        loop {
            while let Some(event) = self.events.get(self.seen) {
                self.seen += 1;
                if event["event"] == name && event["vm"] == vm {
                    return event.clone();
                }
            }
            match self.message(deadline) {
                Some(message) if message.get("event").is_some() => self.events.push(message),
                Some(_) => {}
                None => panic!("no event {name} of {vm}{}", self.line.tail()),
            }
        }
    }

    /// Takes all events so far as expected.
    pub fn forget_events(&mut self) {
        self.seen = self.events().len();
    }

    /// Returns all events so far.
    pub fn events(&mut self) -> &[Value] {
        while let Some(message) = self.message(Instant::now()) {
            if message.get("event").is_some() {
                self.events.push(message);
            }
        }
        &self.events
    }

    fn message(&mut self, deadline: Instant) -> Option<Value> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.line.next_line(left)?;
            if line.trim().is_empty() {
                continue;
            }
            let start = line.find('{').filter(|_| self.after_firmware);
            match serde_json::from_str(&line[start.unwrap_or(0)..]) {
                Ok(message) => {
                    self.after_firmware = false;
                    return Some(message);
                }
                Err(_) if self.after_firmware && !line.starts_with('{') => {}
                Err(error) => panic!(
                    "not a JSON line on the control channel: {line:?}: {error}{}",
                    self.line.tail()
                ),
            }
        }
    }
}

fn result(message: &Value) -> Result<Value, Refusal> {
    if message["ok"] == true {
        return Ok(message["result"].clone());
    }
    let text = |key: &str| message["error"][key].as_str().unwrap_or("").to_owned();
    Err(Refusal {
        kind: text("kind"),
        message: text("message"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;

    const LONG: Duration = Duration::from_secs(20);

    fn control(name: &str) -> (Control, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let log = std::env::temp_dir().join(format!("control-{}-{name}.log", std::process::id()));
        (Control::new(Console::new(ours, log)), theirs)
    }

    #[test]
    fn replies_are_matched_by_id_and_events_kept() {
        let (mut control, mut machine) = control("match");
        machine
            .write_all(
                concat!(
                    r#"{"event":"vcpu-online","vm":"a","vcpu":1,"time_ns":5}"#,
                    "\n",
                    r#"{"id":1,"ok":true,"result":{"reached":2}}"#,
                    "\r\n",
                    r#"{"event":"resize-done","vm":"b"}"#,
                    "\n",
                    r#"{"event":"resize-done","vm":"a"}"#,
                    "\n",
                    r#"{"id":2,"ok":false,"error":{"kind":"no-such-vm","message":"x"}}"#,
                    "\n"
                )
                .as_bytes(),
            )
            .unwrap();
        assert_eq!(
            control.command("vcpu set a 2", LONG).unwrap(),
            json!({"reached": 2})
        );
        assert_eq!(
            control.command("vm stop z", LONG).unwrap_err().kind,
            "no-such-vm"
        );
        assert_eq!(control.event("resize-done", "a", LONG)["vm"], "a");
        assert_eq!(control.events().len(), 3);
        let mut request = String::new();
        BufReader::new(&machine).read_line(&mut request).unwrap();
        let request: Value = serde_json::from_str(&request).unwrap();
        assert_eq!(request, json!({"id": 1, "command": "vcpu set a 2"}));
    }
}
