//! For how long a client's flows follow those before them.

use super::period::Period;
use super::quote::Quoted;
use super::span::span;
use super::text::as_text;

span! {
    /// Since the client's last new flow; `off` where each is balanced by itself.
    ///
    /// The data plane counts in seconds. Further than a day, an entry's age is not worth its room.
    Affinity, InvalidAffinity, "affinity", Period::from_secs(1), Period::from_secs(24 * 3600), "10m"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_off_or_a_time_of_a_day_at_most() {
        for (typed, printed) in [("off", "off"), ("600s", "10m"), ("24h", "24h"), ("1s", "1s")] {
            assert_eq!(typed.parse::<Affinity>().unwrap().to_string(), printed);
        }
        for text in ["", "on", "0s", "999ms", "25h", "10"] {
            assert_eq!(
                text.parse::<Affinity>().unwrap_err().to_string(),
                format!("invalid affinity `{text}`: write `off`, or a time from 1s to 24h, such as 10m")
            );
        }
    }
}
