//! Where an SPI goes, in no version's words. A face turns its routing registers into this and back.

/// The route of an SPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To the vCPU with this index; it leads nowhere where there is none.
    To(u32),
    /// To any one vCPU that takes part. The number is what [`Route::To`] had: the guest may read it.
    Any(u32),
    /// To any one of these vCPUs that takes part, a bit each.
    Among(u32),
}
