//! An answer on its way out: its rows are written as the port has room for them, so that a long one holds nothing up.
//!
//! Neighbours: `json` and `text` (what a row looks like), `outlet` (the room).

use super::{
    error::CommandError,
    json,
    names::Names,
    reply::{Event, Reply},
    request::RequestId,
    sink::ByteSink,
    table::Widths,
    text,
};

/// What is left to write of an answer.
#[derive(Debug)]
pub(super) struct Writing {
    reply: Reply,
    /// Where the next row begins; of the log in bytes, else in rows.
    place: usize,
    form: Form,
}

/// How it is written.
#[derive(Debug)]
enum Form {
    /// As a line of JSON that ends with this.
    Json(&'static str),
    /// In words, in columns of these widths.
    Text(Widths),
}

impl Writing {
    /// Writes an answer as JSON; returns what is left of it.
    pub(super) fn json(
        id: &RequestId,
        result: Result<Reply, CommandError>,
        names: &Names,
        out: &mut dyn ByteSink,
    ) -> Option<Self> {
        let tail = json::reply_head(id, &result, names, out)?;
        Self::rows(result.ok()?, Form::Json(tail))
    }

    /// Writes an event as JSON, before which `dropped` of its VM were not told; returns what is left of it.
    pub(super) fn json_event(
        event: &Event,
        dropped: u32,
        names: &Names,
        out: &mut dyn ByteSink,
    ) -> Option<Self> {
        let tail = json::event_head(event, dropped, names, out)?;
        Self::rows(event.what.report()?, Form::Json(tail))
    }

    /// Writes an answer in words; returns what is left of it.
    pub(super) fn text(
        result: Result<Reply, CommandError>,
        names: &Names,
        out: &mut dyn ByteSink,
    ) -> Option<Self> {
        let reply = result
            .map_err(|error| text::error(&error, out))
            .ok()
            .filter(|reply| text::reply_head(reply, names, out))?;
        let widths = text::widths(&reply, names);
        Self::rows(reply, Form::Text(widths))
    }

    /// Writes an event in words; returns what is left of it.
    pub(super) fn text_event(event: &Event, names: &Names, out: &mut dyn ByteSink) -> Option<Self> {
        match event.what.report() {
            Some(report) => Self::text(Ok(report), names, out),
            None => {
                text::event(event, names, out);
                None
            }
        }
    }

    fn rows(reply: Reply, form: Form) -> Option<Self> {
        let place = 0;
        Some(Self { reply, place, form })
    }

    /// Writes the next row, or what follows the last; returns whether there is more.
    pub(super) fn go_on(&mut self, names: &Names, out: &mut dyn ByteSink) -> bool {
        let next = match &self.form {
            Form::Json(tail) => {
                let next = json::row(&self.reply, self.place, names, out);
                if next.is_none() {
                    out.put(tail.as_bytes());
                }
                next
            }
            Form::Text(widths) => text::row(&self.reply, self.place, widths, names, out),
        };
        self.place = next.unwrap_or(self.place);
        next.is_some()
    }
}
