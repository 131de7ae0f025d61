//! Bullpen's own calls: the wall clock of guests that have EFI run-time services (`firmware::efi`).

use crate::devices::{Devices, Surroundings, Work};
use crate::vm::context::Frame;
use control_plane::clock::{calls, time};

/// Returns whether a function id in x0 is one of ours.
#[must_use]
pub const fn is_ours(x0: u64) -> bool {
    matches!(x0 as u32, calls::GET_TIME | calls::SET_TIME)
}

/// Carries a call out on the VM's clock, in whose surroundings it is made: x0 becomes the status, x1 and x2 the time where it is asked
/// for. Returns what else is to be done.
pub fn answer(
    frame: &mut Frame,
    devices: &Devices,
    around: &mut impl Surroundings,
) -> Option<Work> {
    let mut work = None;
    let status = match frame.x[0] as u32 {
        calls::GET_TIME => {
            let words = time::to_words(u64::from(devices.rtc.seconds(around)));
            frame.x[1..3].copy_from_slice(&words);
            calls::SUCCESS
        }
        _ => match time::from_words([frame.x[1], frame.x[2]])
            .and_then(|seconds| u32::try_from(seconds).ok())
        {
            Some(seconds) => {
                work = devices.rtc.set_seconds(seconds, around);
                calls::SUCCESS
            }
            None => calls::INVALID_PARAMETER,
        },
    };
    frame.x[0] = status as u64;
    work
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::tests::{Fake, PARTS};

    fn call(id: u32, words: [u64; 2], devices: &Devices) -> (Frame, Option<Work>) {
        let mut frame = Frame::default();
        frame.x[0] = u64::from(id);
        frame.x[1..3].copy_from_slice(&words);
        let mut around = Fake {
            now_ns: 5_000_000_000,
            ..Fake::default()
        };
        let work = answer(&mut frame, devices, &mut around);
        (frame, work)
    }

    #[test]
    fn the_time_that_is_set_is_the_time_that_is_told() {
        let devices = Devices::new(&PARTS);
        let (told, _) = call(calls::GET_TIME, [0, 0], &devices);
        let seconds = u64::from(PARTS.wall_clock_s) + 5;
        assert_eq!(time::from_words([told.x[1], told.x[2]]), Some(seconds));
        let words = time::to_words(1_700_000_000);
        let (set, work) = call(calls::SET_TIME, words, &devices);
        assert_eq!((set.x[0], work), (0, None), "there is no alarm");
        let (told, _) = call(calls::GET_TIME, [0, 0], &devices);
        assert_eq!([told.x[1], told.x[2]], words);
    }

    #[test]
    fn a_date_that_is_none_is_refused() {
        let (refused, work) = call(calls::SET_TIME, [0, 0], &Devices::new(&PARTS));
        assert_eq!(refused.x[0] as i64, calls::INVALID_PARAMETER);
        assert_eq!(work, None);
    }
}
