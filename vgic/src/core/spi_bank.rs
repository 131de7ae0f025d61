//! The banks of SPI registers. Fields of private interrupts are RAZ/WI.

use super::bank::{self, Access, Bank};
use super::inbox::Notice;
use super::spi::SpiWord;
use super::spis::Spis;
use crate::IntId;
use crate::lr::LrState;

impl Spis {
    /// Reads registers of a bank.
    ///
    /// `reader` is the vCPU that reads; `held` tells what its list registers say of an SPI
    /// ([`super::vcpu::VcpuInterrupts::held`]). What other vCPUs hold counts as active; they are
    /// asked by `post` to look, so that a reader that polls sees it end.
    #[inline]
    pub(crate) fn read_bank(
        &self,
        access: Access,
        reader: u16,
        held: &impl Fn(IntId) -> LrState,
        post: &mut impl FnMut(u16, Notice),
    ) -> u64 {
        let mut value = 0_u32;
        for (n, spi) in spis_of(access) {
            let word = self.word(spi);
            let mine = word.holder() == Some(reader);
            let state = if mine { held(spi) } else { LrState::Inactive };
            let bit = match access.bank {
                Bank::Group => word.has(SpiWord::GROUP1),
                Bank::SetEnable | Bank::ClearEnable => word.has(SpiWord::ENABLED),
                Bank::SetPending | Bank::ClearPending => word.is_pending() || state.is_pending(),
                Bank::SetActive | Bank::ClearActive => match word.holder() {
                    Some(holder) if !mine => {
                        post(holder, Notice::Interrupt(spi));
                        true
                    }
                    _ => word.has(SpiWord::ACTIVE) || state.is_active(),
                },
                Bank::Config => word.has(SpiWord::EDGE),
                Bank::Priority => {
                    value |= u32::from(word.priority()).wrapping_shl(n.wrapping_mul(8));
                    false
                }
                Bank::None => false,
            };
            value |= u32::from(bit).wrapping_shl(n);
        }
        u64::from(if access.bank == Bank::Config {
            bank::spread_config(value)
        } else {
            value
        })
    }

    /// Writes registers of a bank.
    #[inline(always)]
    pub(crate) fn write_bank(
        &self,
        access: Access,
        value: u32,
        post: &mut impl FnMut(u16, Notice),
    ) {
        if access.first < crate::SPI_BASE {
            return;
        }
        let fields = if access.bank == Bank::Config {
            bank::gather_config(value)
        } else {
            value
        };
        match access.bank {
            Bank::Group => self.write_fields(access, fields, SpiWord::GROUP1, post),
            Bank::Config => self.write_fields(access, fields, SpiWord::EDGE, post),
            Bank::Priority => self.write_priorities(access, value, post),
            Bank::None => {}
            _ => self.write_bits(access, fields, post),
        }
    }

    /// Writes a bank in which a zero matters.
    fn write_fields(
        &self,
        access: Access,
        fields: u32,
        flag: u64,
        post: &mut impl FnMut(u16, Notice),
    ) {
        for (n, spi) in spis_of(access) {
            let set = if fields.wrapping_shr(n) & 1 != 0 {
                flag
            } else {
                0
            };
            self.update(spi, post, |word| word.with(set, flag));
        }
    }

    fn write_priorities(&self, access: Access, value: u32, post: &mut impl FnMut(u16, Notice)) {
        for (n, spi) in spis_of(access) {
            let priority = value.wrapping_shr(n.wrapping_mul(8)) as u8;
            self.update(spi, post, |word| word.with_priority(priority));
        }
    }

    /// Writes a bank in which only ones do something.
    #[inline(always)]
    fn write_bits(&self, access: Access, mut bits: u32, post: &mut impl FnMut(u16, Notice)) {
        let change = |word: SpiWord| match access.bank {
            Bank::SetEnable => word.with(SpiWord::ENABLED, 0),
            Bank::ClearEnable => word.with(0, SpiWord::ENABLED),
            Bank::SetPending => word.with(SpiWord::LATCHED, SpiWord::UNPEND),
            Bank::ClearPending => clear_pending(word),
            Bank::SetActive => word.with(SpiWord::ACTIVE, SpiWord::DEACTIVATE),
            Bank::ClearActive => clear_active(word),
            _ => word,
        };
        while bits != 0 {
            let n = bits.trailing_zeros();
            bits &= bits.wrapping_sub(1);
            let Some(spi) = IntId::new(access.first.wrapping_add(n)) else {
                return;
            };
            self.update_inlined(spi, post, change);
        }
    }
}

/// A holder has the pending state in its list register: it is asked to drop it.
fn clear_pending(word: SpiWord) -> SpiWord {
    let ask = if word.holder().is_some() {
        SpiWord::UNPEND
    } else {
        0
    };
    word.with(ask, SpiWord::LATCHED)
}

/// A holder has the active state in its list register: it is asked to end it.
fn clear_active(word: SpiWord) -> SpiWord {
    if word.holder().is_some() {
        word.with(SpiWord::DEACTIVATE, 0)
    } else {
        word.with(0, SpiWord::ACTIVE)
    }
}

/// Returns the SPIs of an access with the number of their field; private interrupts have none here.
fn spis_of(access: Access) -> impl Iterator<Item = (u32, IntId)> {
    (0..access.count).filter_map(move |n| {
        let spi = IntId::new(access.first.wrapping_add(n)).filter(|id| !id.is_private())?;
        Some((n, spi))
    })
}
