//! What the hypervisor itself can be told: by the manifest's `hypervisor` node, then by `bullpen.` words of the boot
//! loader's command line (`/chosen/bootargs`), which win.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::num::NonZeroU32;

use log::LevelFilter;

use super::error::{ConfigError, Problem};
use super::schema::YES_NO;

/// What a word of the command line begins with to be ours.
const PREFIX: &str = "bullpen.";

types::words! {
    /// When memory is cleared that no guest has held since the machine was started. What a guest has held is always
    /// cleared before another can see it.
    Scrub:
    /// Never: boot time does not grow with memory.
    Release = "release",
    /// Before the first VM is started.
    Boot = "boot",
}

/// Options of the hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `scrub`: when free memory is cleared.
    pub scrub: Scrub,
    /// `log`: the least severe messages shown.
    pub log: LevelFilter,
    /// `autostart`: whether VMs are started that their manifest says are; `no` leaves it to the operator.
    pub autostart: bool,
    /// `uart-baud`: sends no faster than a wire of this speed would; `None` leaves the pace to the UARTs.
    pub uart_baud: Option<NonZeroU32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            scrub: Scrub::Release,
            log: LevelFilter::Info,
            autostart: true,
            uart_baud: None,
        }
    }
}

/// The slowest and the fastest pace of a UART, in bits a second.
const BAUD: (u32, u32) = (300, 4_000_000);

impl Options {
    /// Sets the option `name` to what `value` says.
    ///
    /// # Errors
    /// The [`Problem`] of the name or the value; the option then keeps its value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        match name {
            "scrub" => self.scrub = pick(value, &Scrub::WORDS, &Scrub::ALL)?,
            "log" => self.log = pick(value, LEVEL_WORDS, LEVELS)?,
            "autostart" => self.autostart = pick(value, &YES_NO, &[false, true])?,
            "uart-baud" => self.uart_baud = Some(baud(value)?),
            _ => return Err(Problem::Unknown),
        }
        Ok(())
    }

    /// Applies the `bullpen.` words of a command line and returns what is wrong with any of them; other words are not
    /// ours and pass.
    #[must_use]
    pub fn apply_bootargs(&mut self, bootargs: &str) -> Vec<ConfigError> {
        let words = bootargs
            .split_ascii_whitespace()
            .filter_map(|word| word.strip_prefix(PREFIX));
        words
            .filter_map(|word| {
                let (name, value) = word.split_once('=').unwrap_or((word, ""));
                let problem = self.set(name, value).err()?;
                Some(ConfigError {
                    file: "bootargs",
                    node: String::new(),
                    property: alloc::format!("{PREFIX}{name}"),
                    value: value.to_string(),
                    problem,
                })
            })
            .collect()
    }
}

/// The levels of `log`, quietest first.
pub(super) const LEVEL_WORDS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];
const LEVELS: &[LevelFilter] = &[
    LevelFilter::Off,
    LevelFilter::Error,
    LevelFilter::Warn,
    LevelFilter::Info,
    LevelFilter::Debug,
    LevelFilter::Trace,
];

/// Reads the pace of a UART.
fn baud(value: &str) -> Result<NonZeroU32, Problem> {
    let (min, max) = BAUD;
    let baud = value.parse().map_err(|_| Problem::NotNumber)?;
    NonZeroU32::new(baud)
        .filter(|_| (min..=max).contains(&baud))
        .ok_or(Problem::OutOfRange {
            min: u64::from(min),
            max: u64::from(max),
        })
}

/// Returns the value at the place that `word` has among `words`.
pub(super) fn pick<T: Copy>(
    word: &str,
    words: &'static [&'static str],
    values: &[T],
) -> Result<T, Problem> {
    let place = words.iter().position(|known| *known == word);
    place
        .and_then(|place| values.get(place))
        .copied()
        .ok_or(Problem::NotOneOf(words))
}
