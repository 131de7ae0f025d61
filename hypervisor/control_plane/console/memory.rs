//! Whether a request for memory can be begun: in how many slots a VM has so much, and what is only asked for by force.

use alloc::format;
use alloc::string::String;

use super::error::{CommandError, ErrorKind};
use types::layout::Slots;

/// How much memory Linux takes for what it had at boot, unless it is forced: each GiB costs 18 MiB of that.
const MOST_BY_BOOT: u64 = 16;
const MIB: u64 = 1 << 20;

/// A request for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// How much the VM is to have in all, in bytes.
    pub bytes: u64,
    /// Even if the guest may not bear it.
    pub force: bool,
}

/// Returns in how many slots a VM has as much as is asked for, that has `boot` bytes besides and holds so many slots.
///
/// # Errors
/// What the operator is told: the VM has no slots, or the amount is none of their sums, or it takes force.
pub fn admit(ask: Ask, slots: Slots, boot: u64, held: u16) -> Result<u16, CommandError> {
    let no = |kind, message: String| Err(CommandError::new(kind, message));
    if slots.count == 0 {
        let why = "its memory is fixed: the manifest gives it no `max-memory`";
        return no(ErrorKind::Unsupported, why.into());
    }
    let (block, hot) = (slots.block, ask.bytes.wrapping_sub(boot));
    let most = slots.region().size;
    if hot > most || !hot.is_multiple_of(block) {
        let [least, most, block] = [boot, boot.saturating_add(most), block].map(|n| n / MIB);
        let why =
            format!("memory is {least} MiB, from boot, to {most} MiB in steps of {block} MiB");
        return no(ErrorKind::BadNumber, why);
    }
    let count = hot.checked_div(block).unwrap_or(0) as u16;
    let why = if count < held {
        "a guest that is too full does not refuse, it kills a process, and no balloon tells how full it is"
    } else if count > held && hot / MOST_BY_BOOT > boot {
        "more than 16 times the memory from boot, of which each GiB takes 18 MiB"
    } else {
        return Ok(count);
    };
    match ask.force {
        true => Ok(count),
        false => no(
            ErrorKind::NeedsForce,
            format!("{why}; `--force` asks all the same"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{Ask, ErrorKind, MIB, Slots, admit};
    use types::address::GuestPhys;

    const SLOTS: Slots = Slots {
        base: GuestPhys::new(0x8000_0000),
        block: 128 * MIB,
        count: 100,
    };

    #[test]
    fn what_is_asked_for_is_a_number_of_slots_or_refused_by_name() {
        let ask = |mib: u64, force, held| {
            let bytes = mib * MIB;
            admit(Ask { bytes, force }, SLOTS, 512 * MIB, held)
                .map_err(|error| (error.kind, error.message.contains("--force")))
        };
        assert_eq!(ask(512, false, 0), Ok(0));
        assert_eq!(ask(512 + 384, false, 1), Ok(3));
        assert_eq!(ask(512 + 384, false, 3), Ok(3), "as it is");
        for wrong in [0, 384, 600, 512 + 101 * 128, u64::MAX >> 20] {
            assert_eq!(ask(wrong, true, 0), Err((ErrorKind::BadNumber, false)));
        }
        // Back, and very far up.
        assert_eq!(ask(512, false, 1), Err((ErrorKind::NeedsForce, true)));
        assert_eq!(ask(512, true, 1), Ok(0));
        let (most, more) = (512 * 17, 512 * 17 + 128);
        assert_eq!(ask(most, false, 0), Ok(64));
        assert_eq!(ask(more, false, 0), Err((ErrorKind::NeedsForce, true)));
        assert_eq!(ask(more, true, 0), Ok(65));
        let fixed = admit(
            Ask {
                bytes: 0,
                force: true,
            },
            Slots::NONE,
            0,
            0,
        );
        assert_eq!(fixed.unwrap_err().kind, ErrorKind::Unsupported);
    }
}
