//! Sets of values that each have a word: what programs compare and people read.

/// Makes an enum of values with a word each, which [`name`] returns, and the lists `ALL` of them and `WORDS` of
/// theirs.
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

            /// The words of all values, in order.
            pub const WORDS: [&'static str; Self::ALL.len()] = [$($word,)+];

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
