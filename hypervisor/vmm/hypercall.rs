//! Bullpen's own calls: the wall clock of guests that have EFI run-time services (`firmware::efi`).

use crate::devices::pl031::Pl031;
use crate::vm::context::Frame;
use control_plane::clock::{calls, time};

/// Returns whether a function id in x0 is one of ours.
#[must_use]
pub const fn is_ours(x0: u64) -> bool {
    matches!(x0 as u32, calls::GET_TIME | calls::SET_TIME)
}

/// Carries a call out on the VM's clock: x0 becomes the status, x1 and x2 the time where it is asked for.
pub fn answer(frame: &mut Frame, clock: &mut Pl031, now_ns: u64) {
    let status = match frame.x[0] as u32 {
        calls::GET_TIME => {
            let words = time::to_words(u64::from(clock.seconds(now_ns)));
            frame.x[1..3].copy_from_slice(&words);
            calls::SUCCESS
        }
        _ => match time::from_words([frame.x[1], frame.x[2]])
            .and_then(|seconds| u32::try_from(seconds).ok())
        {
            Some(seconds) => {
                clock.set_seconds(seconds, now_ns);
                calls::SUCCESS
            }
            None => calls::INVALID_PARAMETER,
        },
    };
    frame.x[0] = status as u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: u32, words: [u64; 2], clock: &mut Pl031) -> Frame {
        let mut frame = Frame::default();
        frame.x[0] = u64::from(id);
        frame.x[1..3].copy_from_slice(&words);
        answer(&mut frame, clock, 5_000_000_000);
        frame
    }

    #[test]
    fn the_time_that_is_set_is_the_time_that_is_told() {
        let mut clock = Pl031::new(1_000_000);
        let told = call(calls::GET_TIME, [0, 0], &mut clock);
        assert_eq!(time::from_words([told.x[1], told.x[2]]), Some(1_000_005));
        let words = time::to_words(1_700_000_000);
        assert_eq!(call(calls::SET_TIME, words, &mut clock).x[0], 0);
        let told = call(calls::GET_TIME, [0, 0], &mut clock);
        assert_eq!([told.x[1], told.x[2]], words);
    }

    #[test]
    fn a_date_that_is_none_is_refused() {
        let mut clock = Pl031::new(7);
        assert_eq!(
            call(calls::SET_TIME, [0, 0], &mut clock).x[0] as i64,
            calls::INVALID_PARAMETER
        );
    }
}
