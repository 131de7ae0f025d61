//! Sets of values that each have a word: what programs compare and people read.

/// Makes an enum of values with a word each, which [`name`] returns, and the list `ALL` of them.
///
/// [`name`]: crate::stats::ExitReason::name
#[macro_export]
macro_rules! words {
    ($(#[$doc:meta])* $name:ident: $($(#[$its_doc:meta])* $value:ident = $word:literal,)+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum $name {
            $($(#[$its_doc])* $value,)+
        }

        impl $name {
            /// Every value, in order.
            pub const ALL: [Self; [$($word,)+].len()] = [$(Self::$value,)+];

            /// Returns the word that stands for the value.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)+
                }
            }
        }
    };
}
