//! What the demo prints: calm, and plain text when nobody watches.

use std::io::{IsTerminal, Write, stdout};

use super::judge::{self, StepReport};
use super::lab::Lab;
use crate::tally::Tally;

/// Columns of a bar; a full one is half of the traffic, so that equal shares of three and four differ to the eye.
const BAR_COLUMNS: usize = 10;
const FULL_BAR: f64 = 0.5;

/// Standard output, with or without colours.
pub(super) struct Screen {
    /// A terminal: the line of the running step is rewritten as it counts.
    live: bool,
    colours: bool,
}

#[derive(Clone, Copy)]
enum Style {
    Bold,
    Dim,
    Green,
    Red,
}

impl Screen {
    pub(super) fn new() -> Self {
        let live = stdout().is_terminal();
        // https://no-color.org: set and not empty.
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { live, colours: live && !unwanted }
    }

    fn paint(&self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Green => "32",
            Style::Red => "31",
        };
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(super) fn opening(&self) {
        say(&format!(
            "\n{}  client, balancer and four backends, each a network namespace\n",
            self.paint(Style::Bold, "lb-agent demo")
        ));
    }

    pub(super) fn lab(&self, lines: &[String]) {
        for line in lines {
            say(&format!("  {}\n", self.paint(Style::Dim, line)));
        }
        say("\n");
    }

    /// The running step's line; only a terminal gets it.
    pub(super) fn progress(&self, number: usize, title: &str, tally: &Tally) {
        if self.live {
            say(&format!("\r\x1b[K  {number}  {}", counts(title, tally)));
        }
    }

    /// A step's final lines.
    pub(super) fn report(&self, report: &StepReport) {
        let start = if self.live { "\r\x1b[K" } else { "" };
        let sign = if report.broken.is_empty() {
            self.paint(Style::Green, "✓")
        } else {
            self.paint(Style::Red, "✗")
        };
        say(&format!("{start}{sign} {}  {}\n", report.number, counts(report.title, &report.tally)));
        say(&format!("     {}\n", self.paint(Style::Dim, &spread(&report.tally))));
        let excuse =
            (report.excused > 0).then(|| format!("{} failed with the killed backend", report.excused));
        let remarks: Vec<_> = report.note.iter().chain(&excuse).map(String::as_str).collect();
        if !remarks.is_empty() {
            say(&format!("     {}\n", self.paint(Style::Dim, &remarks.join("; "))));
        }
        for promise in &report.broken {
            say(&format!("     {}\n", self.paint(Style::Red, promise)));
        }
    }

    /// The table at the end, while the lab still stands.
    pub(super) fn summary(&self, reports: &[StepReport], lab: &Lab) {
        say(&format!(
            "\n  {}\n",
            self.paint(
                Style::Bold,
                &format!("{:<12}{:>10}{:>9}{:>26}", "step", "requests", "failed", "with the killed backend")
            )
        ));
        let mut total = Tally::default();
        let mut excused = 0;
        for report in reports {
            say(&format!("  {}\n", row(report.name, &report.tally, report.excused)));
            total += report.tally.clone();
            excused += report.excused;
        }
        say(&format!("  {}\n\n", self.paint(Style::Bold, &row("all", &total, excused))));
        say(&format!("  slowest answer             {} ms\n", lab.slowest().as_millis()));
        let [with_the_dead, otherwise] = judge::count_lost(lab);
        let otherwise = if otherwise == 0 { String::new() } else { format!(", {otherwise} lost") };
        say(&format!(
            "  long-lived connections     {} stood to the end, {} hung up by their clients, \
             {with_the_dead} broke with the killed backend{otherwise}\n",
            lab.standing(),
            lab.hung_up
        ));
        let broken: usize = reports.iter().map(|report| report.broken.len()).sum();
        let verdict = match broken {
            0 => self.paint(Style::Green, "every promise held"),
            1 => self.paint(Style::Red, "one broken, see above"),
            n => self.paint(Style::Red, &format!("{n} broken, see above")),
        };
        say(&format!("  promises                   {verdict}\n\n"));
    }

    pub(super) fn kept_open(&self, lab: &Lab) {
        say(&format!(
            "  {}\n",
            self.paint(Style::Bold, "The lab stays open and the traffic runs until Ctrl-C.")
        ));
        for line in lab.how_to_enter() {
            say(&format!("  {line}\n"));
        }
    }

    pub(super) fn clean(&self) {
        say(&format!("  {}\n", self.paint(Style::Dim, "taken down; nothing left behind")));
    }
}

/// Standard output may be a pipe that nobody reads any more; the demo still has to clean up.
fn say(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn counts(title: &str, tally: &Tally) -> String {
    format!("{title:<36}{:>10} requests{:>6} failed", thousands(tally.requests), thousands(tally.failed))
}

fn row(name: &str, tally: &Tally, excused: u64) -> String {
    format!(
        "{name:<12}{:>10}{:>9}{:>26}",
        thousands(tally.requests),
        thousands(tally.failed),
        thousands(excused)
    )
}

/// `b1 ██████▋ 33 %` for each backend.
fn spread(tally: &Tally) -> String {
    let part = |name: &String| {
        let share = tally.share(name);
        format!("{name} {} {:>2.0} %", bar(share), share * 100.0)
    };
    tally.spread.keys().map(part).collect::<Vec<_>>().join("   ")
}

/// A bar of block characters, in eighths of a column.
fn bar(share: f64) -> String {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 80"
    )]
    let filled = ((share / FULL_BAR).clamp(0.0, 1.0) * (BAR_COLUMNS * 8) as f64).round() as usize;
    let mut bar = "█".repeat(filled / 8);
    if !filled.is_multiple_of(8) {
        bar.push(EIGHTHS[filled % 8]);
    }
    let used = bar.chars().count();
    bar + &" ".repeat(BAR_COLUMNS - used)
}

/// 1234567 as `1,234,567`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped_from_the_right() {
        assert_eq!(
            ["0", "999", "1,000", "12,345", "1,234,567"],
            [0, 999, 1000, 12_345, 1_234_567].map(thousands)[..]
        );
    }

    #[test]
    fn a_bar_always_has_its_width_and_never_overflows() {
        for percent in 0..=100 {
            assert_eq!(bar(f64::from(percent) / 100.0).chars().count(), BAR_COLUMNS);
        }
        assert_eq!(bar(0.25), "█████     ");
        assert_eq!(bar(1.0), "█".repeat(BAR_COLUMNS));
    }

    #[test]
    fn the_spread_names_each_backend_with_its_share() {
        let mut tally = Tally::default();
        ["b1", "b1", "b1", "b2"].iter().for_each(|name| tally.answered(name));
        assert_eq!(spread(&tally), "b1 ██████████ 75 %   b2 █████      25 %");
    }
}
