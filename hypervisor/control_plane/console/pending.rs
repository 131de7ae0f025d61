//! Requests that have not been answered yet, and where the answer goes.

use super::{HostPower, Port, request::RequestId};

/// How many requests may be outstanding at once.
pub const MAX_PENDING: usize = 16;

/// Names a request until it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Token {
    slot: u16,
    /// Tells the users of a slot apart, so that a token answered twice is not taken for the next one.
    generation: u16,
}

/// How a request was put, which is how it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// At the prompt, in words; if it may end VMs the operator is asked first.
    Prompt(Option<HostPower>),
    /// By the live view, for itself.
    View,
    /// In JSON, on either port.
    Json(Port, RequestId),
}

/// The outstanding requests.
#[derive(Debug)]
pub(super) struct Pending {
    slots: [Option<Asker>; MAX_PENDING],
    generation: [u16; MAX_PENDING],
}

impl Pending {
    pub(super) const fn new() -> Self {
        Self {
            slots: [const { None }; MAX_PENDING],
            generation: [0; MAX_PENDING],
        }
    }

    /// Keeps a request; gives the asker back when too many are outstanding.
    pub(super) fn insert(&mut self, asker: Asker) -> Result<Token, Asker> {
        let mut places = self.slots.iter_mut().zip(&self.generation).zip(0u16..);
        match places.find(|((slot, _), _)| slot.is_none()) {
            Some(((place, &generation), slot)) => {
                *place = Some(asker);
                Ok(Token { slot, generation })
            }
            None => Err(asker),
        }
    }

    /// Returns how the request was put that a token names, unless it was answered.
    pub(super) fn asker(&self, token: Token) -> Option<&Asker> {
        let slot = usize::from(token.slot);
        let is_same = self.generation.get(slot) == Some(&token.generation);
        self.slots.get(slot)?.as_ref().filter(|_| is_same)
    }

    /// Takes the request that a token names, once.
    pub(super) fn take(&mut self, token: Token) -> Option<Asker> {
        let generation = self.generation.get_mut(usize::from(token.slot))?;
        if *generation != token.generation {
            return None;
        }
        let asker = self.slots.get_mut(usize::from(token.slot))?.take()?;
        *generation = generation.wrapping_add(1);
        Some(asker)
    }
}
