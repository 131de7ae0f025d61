//! A terminal for the tests: 24 rows of 80 columns, and as much of ECMA-48 as the console may use.

use alloc::string::String;
use alloc::vec::Vec;

const ROWS: usize = 24;
const WIDTH: usize = 80;

/// A screen and its cursor.
pub(super) struct Terminal {
    cells: [[u8; WIDTH]; ROWS],
    row: usize,
    column: usize,
    /// Rows that have left at the top.
    gone: usize,
    sequence: Option<Vec<u8>>,
}

impl Terminal {
    pub(super) fn new() -> Self {
        Self {
            cells: [[b' '; WIDTH]; ROWS],
            row: 0,
            column: 0,
            gone: 0,
            sequence: None,
        }
    }

    /// Takes what is sent to the terminal; a sequence that it does not know is a mistake.
    pub(super) fn show(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match (self.sequence.take(), byte) {
                (Some(mut sequence), _) => {
                    sequence.push(byte);
                    if byte == b'[' || byte.is_ascii_digit() {
                        self.sequence = Some(sequence);
                    } else {
                        self.control(&sequence);
                    }
                }
                (None, 0x1b) => self.sequence = Some(Vec::new()),
                (None, b'\r') => self.column = 0,
                (None, b'\n') => self.down(),
                (None, 7) => {}
                (None, b' '..=b'~') => {
                    if self.column == WIDTH {
                        self.column = 0;
                        self.down();
                    }
                    self.cells[self.row][self.column] = byte;
                    self.column += 1;
                }
                (None, _) => panic!("byte {byte:#x} for a terminal"),
            }
        }
    }

    fn control(&mut self, sequence: &[u8]) {
        match sequence {
            b"[K" => self.cells[self.row][self.column..].fill(b' '),
            b"[J" => {
                self.cells[self.row][self.column..].fill(b' ');
                self.cells[self.row + 1..].fill([b' '; WIDTH]);
            }
            b"[2J" => self.cells = [[b' '; WIDTH]; ROWS],
            b"[H" => (self.row, self.column) = (0, 0),
            b"[0m" => {}
            [b'[', digits @ .., b'D'] => {
                let left: usize = core::str::from_utf8(digits).unwrap().parse().unwrap();
                self.column = self
                    .column
                    .checked_sub(left)
                    .expect("the cursor stays in the row");
            }
            _ => panic!("sequence {}", sequence.escape_ascii()),
        }
    }

    fn down(&mut self) {
        self.row += 1;
        if self.row == ROWS {
            self.cells.copy_within(1.., 0);
            self.cells[ROWS - 1] = [b' '; WIDTH];
            self.row -= 1;
            self.gone += 1;
        }
    }

    fn text(row: &[u8]) -> String {
        String::from_utf8_lossy(row).trim_end().into()
    }

    /// Returns the row with the cursor.
    pub(super) fn row(&self) -> String {
        Self::text(&self.cells[self.row])
    }

    /// Returns the rows down to the one with the cursor.
    pub(super) fn rows(&self) -> Vec<String> {
        self.cells[..=self.row]
            .iter()
            .map(|row| Self::text(row))
            .collect()
    }

    /// Returns the column of the cursor, the first being 0.
    pub(super) fn column(&self) -> usize {
        self.column
    }

    /// Returns how many rows have come before the one with the cursor.
    pub(super) fn row_number(&self) -> usize {
        self.gone + self.row
    }
}
