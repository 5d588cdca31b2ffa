//! The text that Prometheus reads: the classic format (0.0.4) and OpenMetrics (1.0.0), which differ in how the families of
//! counters are called and in how the end is marked.

use std::fmt::Write as _;

/// Which text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// What everything reads.
    Classic,
    /// What a scraper gets that prefers it.
    OpenMetrics,
}

impl Format {
    /// The one that an `Accept` header prefers (RFC 9110 section 12.5.1).
    pub fn accepted(header: &str) -> Self {
        let ranges = || header.split(',').map(|range| range.split(';').map(str::trim));
        let quality = |kind: &str| {
            let mut range = ranges().find(|range| range.clone().next() == Some(kind))?;
            let quality = range.find_map(|parameter| parameter.strip_prefix("q="));
            Some(quality.map_or(1.0, |quality| quality.parse::<f32>().unwrap_or(0.0)))
        };
        match quality("application/openmetrics-text") {
            Some(open) if open > 0.0 && open >= quality("text/plain").unwrap_or(0.0) => Self::OpenMetrics,
            _ => Self::Classic,
        }
    }

    /// As `Content-Type` has it.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What a family's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rises, and begins at zero again where what is counted begins again.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counters of what took how long.
    Histogram,
}

impl Kind {
    /// As the text has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What is written of a family.
pub struct Head {
    /// As samples are called; a counter's ends in `_total`.
    pub name: &'static str,
    /// What its numbers are.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence for people.
    pub help: &'static str,
}

/// A number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Counted: exact.
    Whole(u64),
    /// Measured.
    Real(f64),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Whole(number as u64)
    }
}

impl From<bool> for Value {
    fn from(is_so: bool) -> Self {
        Self::Whole(is_so.into())
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

/// The text so far.
pub struct Exposition {
    format: Format,
    text: String,
}

impl Exposition {
    /// Nothing yet.
    pub const fn new(format: Format) -> Self {
        Self { format, text: String::new() }
    }

    /// Begins a family, all of whose samples follow.
    pub const fn family<'a>(&'a mut self, head: &'a Head) -> Samples<'a> {
        Samples { exposition: self, head, has_begun: false }
    }

    /// The whole.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text += "# EOF\n";
        }
        self.text
    }
}

/// The samples of a family. A family without any is not mentioned.
pub struct Samples<'a> {
    exposition: &'a mut Exposition,
    head: &'a Head,
    has_begun: bool,
}

impl Samples<'_> {
    /// A sample, with a value for each label.
    pub fn sample(&mut self, labels: &[&str], value: impl Into<Value>) {
        self.begin();
        self.line("", labels, None, value.into());
    }

    /// A histogram: how many were at each bound or below it and above the bound before, the last without a bound.
    pub fn histogram(
        &mut self,
        labels: &[&str],
        buckets: impl IntoIterator<Item = (Option<f64>, u64)>,
        sum: f64,
    ) {
        self.begin();
        let mut count = 0;
        for (bound, in_bucket) in buckets {
            count += in_bucket;
            // Bounds are written alike in both formats, with a point or an exponent: else they were two series.
            let bound = bound.map_or_else(|| "+Inf".to_owned(), |bound| format!("{bound:?}"));
            self.line("_bucket", labels, Some(&bound), count.into());
        }
        self.line("_sum", labels, None, sum.into());
        self.line("_count", labels, None, count.into());
    }

    fn begin(&mut self) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        let Head { name, kind, help, .. } = self.head;
        let name = match self.exposition.format {
            Format::OpenMetrics => name.strip_suffix("_total").unwrap_or(name),
            Format::Classic => name,
        };
        let text = &mut self.exposition.text;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {}", Escaped(help), kind.name());
    }

    fn line(&mut self, suffix: &str, labels: &[&str], bound: Option<&str>, value: Value) {
        debug_assert_eq!(labels.len(), self.head.labels.len(), "{}", self.head.name);
        let text = &mut self.exposition.text;
        text.push_str(self.head.name);
        text.push_str(suffix);
        let bound = bound.map(|bound| (&"le", bound));
        let pairs = self.head.labels.iter().zip(labels.iter().copied()).chain(bound);
        let mut separator = '{';
        for (name, value) in pairs {
            // Writing to a string cannot fail.
            let _ = write!(text, "{separator}{name}=\"{}\"", Escaped(value));
            separator = ',';
        }
        if separator == ',' {
            text.push('}');
        }
        let _ = match value {
            Value::Whole(number) => writeln!(text, " {number}"),
            Value::Real(number) => writeln!(text, " {number}"),
        };
    }
}

/// Text in which nothing can end a value or a line.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTER: Head =
        Head { name: "lb_x_total", kind: Kind::Counter, labels: &["a", "b"], help: "Things \\ so." };
    const HISTOGRAM: Head =
        Head { name: "lb_y_seconds", kind: Kind::Histogram, labels: &["a"], help: "Times." };

    fn written(format: Format) -> String {
        let mut text = Exposition::new(format);
        let mut samples = text.family(&COUNTER);
        samples.sample(&["1", "2"], u64::MAX);
        samples.sample(&["x\"} 1\n\\", "\u{1b}[31m"], 0.5);
        let buckets = [(Some(0.000_016), 2), (Some(1.0), 0), (None, 3)];
        text.family(&HISTOGRAM).histogram(&["1"], buckets, 7.25);
        text.family(&HISTOGRAM);
        text.finish()
    }

    #[test]
    fn the_classic_text_has_one_line_for_each_sample() {
        let expected = "\
# HELP lb_x_total Things \\\\ so.
# TYPE lb_x_total counter
lb_x_total{a=\"1\",b=\"2\"} 18446744073709551615
lb_x_total{a=\"x\\\"} 1\\n\\\\\",b=\"\u{1b}[31m\"} 0.5
# HELP lb_y_seconds Times.
# TYPE lb_y_seconds histogram
lb_y_seconds_bucket{a=\"1\",le=\"1.6e-5\"} 2
lb_y_seconds_bucket{a=\"1\",le=\"1.0\"} 2
lb_y_seconds_bucket{a=\"1\",le=\"+Inf\"} 5
lb_y_seconds_sum{a=\"1\"} 7.25
lb_y_seconds_count{a=\"1\"} 5
";
        assert_eq!(written(Format::Classic), expected);
    }

    #[test]
    fn open_metrics_calls_counters_without_their_suffix_and_marks_the_end() {
        let classic = written(Format::Classic).replace("# HELP lb_x_total", "# HELP lb_x");
        let expected = classic.replace("# TYPE lb_x_total", "# TYPE lb_x") + "# EOF\n";
        assert_eq!(written(Format::OpenMetrics), expected);
    }

    #[test]
    fn a_scraper_gets_what_it_prefers() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (header, format) in [
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("application/openmetrics-text;q=0.1, text/plain", Format::Classic),
            ("application/openmetrics-text;q=0", Format::Classic),
            ("application/openmetrics-text;q=x", Format::Classic),
            ("text/html,*/*;q=0.8", Format::Classic),
            ("", Format::Classic),
            (",;q=,;,", Format::Classic),
        ] {
            assert_eq!(Format::accepted(header), format, "{header}");
        }
    }
}
