//! Quoting of what somebody typed, bounded: an error about a 100 kB name is still one line that fits a screen.

use std::fmt;

/// Characters of a quoted value that are shown.
const QUOTED: usize = 64;

/// Shows a value in backticks, cut where it is long, with control characters escaped.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`")?;
        for character in self.0.chars().take(QUOTED) {
            match character.is_control() {
                true => write!(f, "{}", character.escape_default())?,
                false => write!(f, "{character}")?,
            }
        }
        write!(f, "`")?;
        match self.0.chars().nth(QUOTED) {
            Some(_) => write!(f, " (cut; {} bytes)", self.0.len()),
            None => Ok(()),
        }
    }
}

/// One line of at most `limit` characters: line ends become spaces, and the middle of a longer text is left out.
pub fn shorten(text: &str, limit: usize) -> String {
    let line: Vec<char> = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().collect();
    if line.len() <= limit {
        return line.into_iter().collect();
    }
    let half = limit / 2;
    let (head, tail) = (line[..half].iter(), line[line.len() - half..].iter());
    head.chain(&[' ', '.', '.', '.', ' ']).chain(tail).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_cut_and_says_how_long_it_was() {
        let shown = Quoted(&"x".repeat(100_000)).to_string();
        assert_eq!(shown, format!("`{}` (cut; 100000 bytes)", "x".repeat(64)));
    }

    #[test]
    fn control_characters_cannot_break_the_line() {
        assert_eq!(Quoted("a\nb\x1b[31m").to_string(), "`a\\nb\\u{1b}[31m`");
    }

    #[test]
    fn shortening_keeps_both_ends() {
        assert_eq!(shorten("a\n  b", 10), "a b");
        assert_eq!(shorten(&format!("head{}tail", "x".repeat(1000)), 8), "head ... tail");
    }
}
