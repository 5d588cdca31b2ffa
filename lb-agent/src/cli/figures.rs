//! Figures for people: short, and of one width wherever they stand under each other.

/// A number with three digits that count, and `k`, `M`, `G` or `T` for the thousands.
pub(super) fn amount(number: f64) -> String {
    const UNITS: [&str; 5] = ["", "k", "M", "G", "T"];
    let mut scaled = number;
    let mut unit = 0;
    // What would be rounded up to a thousand is the next unit's.
    while scaled >= 999.5 && unit + 1 < UNITS.len() {
        scaled /= 1000.0;
        unit += 1;
    }
    let digits = match scaled {
        _ if unit == 0 && scaled.fract() == 0.0 => 0,
        scaled if scaled < 9.95 => {
            if unit == 0 {
                1
            } else {
                2
            }
        }
        scaled if scaled < 99.95 && unit > 0 => 1,
        _ => 0,
    };
    format!("{scaled:.digits$}{}", UNITS[unit])
}

/// Microseconds as a time: `0.30ms`, `12ms`, `1.2s`.
pub(super) fn time(microseconds: u64) -> String {
    match microseconds as f64 / 1e6 {
        seconds if seconds >= 0.9995 => format!("{seconds:.1}s"),
        seconds if seconds >= 0.009_95 => format!("{:.0}ms", seconds * 1e3),
        seconds => format!("{:.2}ms", seconds * 1e3),
    }
}

/// A part of a whole, in percent; nothing where there is no whole.
pub(super) fn share(part: f64, whole: f64) -> String {
    if whole > 0.0 { format!("{:.0}%", 100.0 * part / whole) } else { "-".to_owned() }
}

/// How long the agent has been running.
pub(super) fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// Text on one line of a terminal: what could move the cursor, change colours or turn the line round is written out instead.
pub(super) fn plain(text: &str) -> String {
    let is_odd = |character: char| {
        character.is_control()
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match is_odd(character) {
            true => plain.extend(character.escape_default()),
            false => plain.push(character),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_three_digits() {
        for (number, text) in [
            (0.0, "0"),
            (7.0, "7"),
            (0.25, "0.2"),
            (9.96, "10"),
            (999.4, "999"),
            (999.6, "1.00k"),
            (1234.0, "1.23k"),
            (12_345.0, "12.3k"),
            (123_456.0, "123k"),
            (999_700.0, "1.00M"),
            (5e12, "5.00T"),
            (5e15, "5000T"),
        ] {
            assert_eq!(amount(number), text, "{number}");
        }
    }

    #[test]
    fn times_are_short() {
        let times = [0, 300, 9_940, 9_960, 201_000, 999_400, 999_600, 61_000_000].map(time);
        assert_eq!(times, ["0.00ms", "0.30ms", "9.94ms", "10ms", "201ms", "999ms", "1.0s", "61.0s"]);
        assert_eq!([share(1.0, 3.0), share(1.0, 0.0)], ["33%", "-"]);
    }

    #[test]
    fn nothing_in_a_text_reaches_the_terminal_but_characters() {
        let hostile = "a\n\x1b[31mb\r\u{9b}c\u{202e}d\u{7}é\u{200b}";
        assert_eq!(plain(hostile), "a\\n\\u{1b}[31mb\\r\\u{9b}c\\u{202e}d\\u{7}é\\u{200b}");
    }
}
