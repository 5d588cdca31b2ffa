//! Times that can be `off`.

/// Defines a type that is written as `off` or as a length of time within bounds.
macro_rules! span {
    ($(#[$meta:meta])* $name:ident, $error:ident, $what:literal, $least:expr, $most:expr, $example:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name(Option<Period>);

        /// A text that is none.
        #[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
        #[error(
            "invalid {} {}: write `off`, or a time from {} to {}, such as {}",
            $what, Quoted(.0), $name::LEAST, $name::MOST, $example
        )]
        pub struct $error(String);

        impl $name {
            const LEAST: Period = $least;
            const MOST: Period = $most;

            /// How long it is, unless it is off.
            pub const fn period(self) -> Option<Period> {
                self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.0 {
                    Some(period) => period.fmt(f),
                    None => f.write_str("off"),
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, $error> {
                if text == "off" {
                    return Ok(Self(None));
                }
                let period = text.parse().ok().filter(|period| (Self::LEAST..=Self::MOST).contains(period));
                period.map(|period| Self(Some(period))).ok_or_else(|| $error(text.to_owned()))
            }
        }

        as_text!($name);
    };
}
pub(super) use span;
