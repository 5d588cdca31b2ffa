//! Bytes that are sent or waited for, written as text.

use std::fmt;
use std::str::FromStr;

/// Bytes, written as their characters, with `\n`, `\r`, `\t`, `\0`, `\\` and `\xNN` for those that are none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Datagram(Vec<u8>);

impl Datagram {
    /// As much as fits any path without being fragmented.
    pub const MAX: usize = 512;

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Datagram {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            let (value, left) = match byte {
                b'\\' => escape(after).ok_or(())?,
                _ => (byte, after),
            };
            bytes.push(value);
            rest = left;
        }
        if bytes.len() <= Self::MAX { Ok(Self(bytes)) } else { Err(()) }
    }
}

/// The byte that stands behind a backslash, and what follows it.
fn escape(text: &[u8]) -> Option<(u8, &[u8])> {
    match text {
        [b'n', rest @ ..] => Some((b'\n', rest)),
        [b'r', rest @ ..] => Some((b'\r', rest)),
        [b't', rest @ ..] => Some((b'\t', rest)),
        [b'0', rest @ ..] => Some((0, rest)),
        [b'\\', rest @ ..] => Some((b'\\', rest)),
        [b'x', high, low, rest @ ..] => {
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            Some((digit(*high)? << 4 | digit(*low)?, rest))
        }
        _ => None,
    }
}

impl fmt::Display for Datagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| match byte {
            b'\n' => f.write_str("\\n"),
            b'\r' => f.write_str("\\r"),
            b'\t' => f.write_str("\\t"),
            b'\\' => f.write_str("\\\\"),
            b' '..=b'~' => write!(f, "{}", char::from(*byte)),
            other => write!(f, "\\x{other:02x}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_are_read() {
        let read = |text: &str| text.parse::<Datagram>().map(|datagram| datagram.0);
        assert_eq!(read("ping\\n\\x00\\xfF\\0\\\\é"), Ok(b"ping\n\0\xff\0\\\xc3\xa9".to_vec()));
        for text in ["\\", "\\x0", "\\xgg", "\\a", "\\é"] {
            assert_eq!(read(text), Err(()), "{text}");
        }
        assert_eq!(read(&"x".repeat(513)), Err(()));
    }

    proptest! {
        #[test]
        fn all_bytes_survive_printing(bytes in vec(any::<u8>(), 0..=Datagram::MAX)) {
            let datagram = Datagram(bytes);
            prop_assert_eq!(datagram.to_string().parse(), Ok(datagram));
        }
    }
}
