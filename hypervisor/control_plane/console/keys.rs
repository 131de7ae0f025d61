//! Bytes from a terminal to keys: control characters and the escape sequences of ECMA-48 that cursor keys send.

/// A key, by what it means to a line editor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A printable ASCII character.
    Character(u8),
    /// The line is complete.
    Enter,
    /// The line is given up.
    Abandon,
    /// One place to the left.
    Left,
    /// One place to the right.
    Right,
    /// To the start of this word or the one before.
    WordLeft,
    /// Behind this word or the next one.
    WordRight,
    /// To the start of the line.
    Home,
    /// To the end of the line.
    End,
    /// The line before in the history.
    Up,
    /// The line after in the history.
    Down,
    /// Erase the character before the cursor.
    Backspace,
    /// Erase the character under the cursor.
    Delete,
    /// Erase from the start of the line.
    EraseLine,
    /// Erase to the end of the line.
    EraseToEnd,
    /// Erase the word before the cursor.
    EraseWord,
    /// Erase up to the end of the word.
    EraseWordRight,
    /// Complete the word before the cursor.
    Complete,
    /// Search the history for what is typed next, or further back.
    Search,
    /// Show everything anew.
    Redraw,
    /// Something without a meaning.
    Unknown,
}

/// Where in an escape sequence the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Plain,
    /// After a carriage return, whose line feed is not a second line.
    AfterReturn,
    /// After ESC.
    Escape,
    /// After ESC O.
    SingleShift,
    /// After ESC [, with the first parameter as far as it was read.
    Control {
        parameter: u8,
        first: bool,
    },
}

/// Reads one terminal's bytes.
#[derive(Debug)]
pub(super) struct KeyReader(State);

const ESC: u8 = 0x1b;

impl KeyReader {
    pub(super) const fn new() -> Self {
        Self(State::Plain)
    }

    /// Takes a byte; returns a key if the byte completes one.
    pub(super) fn feed(&mut self, byte: u8) -> Option<Key> {
        let state = core::mem::replace(&mut self.0, State::Plain);
        if byte == ESC {
            self.0 = State::Escape;
            return None;
        }
        match state {
            State::AfterReturn if byte == b'\n' => None,
            State::Plain | State::AfterReturn => Some(self.plain(byte)),
            State::Escape => {
                self.0 = match byte {
                    b'[' => State::Control {
                        parameter: 0,
                        first: true,
                    },
                    b'O' => State::SingleShift,
                    _ => return Some(meta_key(byte)),
                };
                None
            }
            State::SingleShift => Some(cursor_key(byte, false)),
            State::Control { parameter, first } => self.control(byte, parameter, first),
        }
    }

    fn plain(&mut self, byte: u8) -> Key {
        match byte {
            b' '..=b'~' => Key::Character(byte),
            b'\r' => {
                self.0 = State::AfterReturn;
                Key::Enter
            }
            b'\n' => Key::Enter,
            0x08 | 0x7f => Key::Backspace,
            _ => control_key(byte),
        }
    }

    /// Reads a control sequence (ECMA-48, 5.4): parameter and intermediate bytes up to a final byte.
    fn control(&mut self, byte: u8, parameter: u8, first: bool) -> Option<Key> {
        match byte {
            b'0'..=b'9' if first => {
                let digit = byte.wrapping_sub(b'0');
                self.0 = State::Control {
                    parameter: parameter.saturating_mul(10).saturating_add(digit),
                    first,
                };
                None
            }
            b' '..=b'?' => {
                self.0 = State::Control {
                    parameter,
                    first: false,
                };
                None
            }
            b'~' => Some(match parameter {
                1 | 7 => Key::Home,
                4 | 8 => Key::End,
                3 => Key::Delete,
                _ => Key::Unknown,
            }),
            _ => Some(cursor_key(byte, !first)),
        }
    }
}

/// Maps what follows ESC, as terminals send a key that is pressed together with Alt.
const fn meta_key(byte: u8) -> Key {
    match byte {
        b'b' => Key::WordLeft,
        b'f' => Key::WordRight,
        b'd' => Key::EraseWordRight,
        0x08 | 0x7f => Key::EraseWord,
        _ => Key::Unknown,
    }
}

/// Maps the end of a cursor key's sequence; a second parameter says that another key was pressed with it.
const fn cursor_key(byte: u8, is_modified: bool) -> Key {
    match byte {
        b'C' if is_modified => Key::WordRight,
        b'D' if is_modified => Key::WordLeft,
        b'A' => Key::Up,
        b'B' => Key::Down,
        b'C' => Key::Right,
        b'D' => Key::Left,
        b'H' => Key::Home,
        b'F' => Key::End,
        _ => Key::Unknown,
    }
}

/// Maps a control character as Unix line editors do.
const fn control_key(byte: u8) -> Key {
    /// The control character of a letter's key.
    const fn ctrl(letter: u8) -> u8 {
        letter & 0x1f
    }
    const A: u8 = ctrl(b'A');
    const B: u8 = ctrl(b'B');
    const C: u8 = ctrl(b'C');
    const D: u8 = ctrl(b'D');
    const E: u8 = ctrl(b'E');
    const F: u8 = ctrl(b'F');
    const K: u8 = ctrl(b'K');
    const L: u8 = ctrl(b'L');
    const N: u8 = ctrl(b'N');
    const P: u8 = ctrl(b'P');
    const R: u8 = ctrl(b'R');
    const U: u8 = ctrl(b'U');
    const W: u8 = ctrl(b'W');
    match byte {
        A => Key::Home,
        B => Key::Left,
        C => Key::Abandon,
        D => Key::Delete,
        E => Key::End,
        F => Key::Right,
        K => Key::EraseToEnd,
        L => Key::Redraw,
        N => Key::Down,
        P => Key::Up,
        R => Key::Search,
        b'\t' => Key::Complete,
        U => Key::EraseLine,
        W => Key::EraseWord,
        _ => Key::Unknown,
    }
}
